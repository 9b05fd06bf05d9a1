//! How packets move a session's state, as far as expiry needs to know. The endpoints' stacks check sequence numbers; we
//! follow the control bits. A closed session still forwards, and still to its real server, and one that was reset lives on
//! with the next packet: what a forged RST can do is to let a connection be forgotten that is then silent for as long as a
//! closed one is kept.

use crate::table::session::{Direction, Session, State};
use crate::view::{Timeouts, VirtualServer};
use crate::wire::protocol;
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};

/// The session that a flow starts with, by its first packet. The real server and the rest are the caller's to fill in.
///
/// A flow that we meet in the middle starts half-open as well: one packet proves nothing, and a flood of such packets must
/// not fill the table with what can't be evicted.
#[inline]
pub fn first(ip_protocol: u8, tcp_flags: u8) -> Session {
    let state = match ip_protocol {
        protocol::TCP if tcp_flags & RST != 0 => State::Reset,
        protocol::TCP if tcp_flags & FIN != 0 => State::ClientClosing,
        _ => State::HalfOpen,
    };
    let mut session = Session::default();
    session.state = state;
    session
}

/// Whether the packet opens a connection.
#[inline]
pub fn opens(ip_protocol: u8, tcp_flags: u8) -> bool {
    ip_protocol == protocol::TCP && tcp_flags & (SYN | ACK | RST) == SYN
}

/// Whether the packet leaves `session` as it is: nearly all do.
#[inline(always)]
pub fn steady(session: &Session, ip_protocol: u8, tcp_flags: u8) -> bool {
    session.state == State::Established
        && (ip_protocol != protocol::TCP || tcp_flags & (SYN | FIN | RST) == 0)
}

/// Moves `session` on by a packet.
#[inline]
pub fn advance(session: &mut Session, ip_protocol: u8, tcp_flags: u8, direction: Direction) {
    use State::{Answered, ClientClosing, Closed, Established, HalfOpen, Reset, ServerClosing};
    if ip_protocol != protocol::TCP {
        session.state = Established;
        return;
    }
    let nat = session.snat_port != 0;
    let handshake = tcp_flags & SYN != 0;
    session.state = match (session.state, direction) {
        // With NAT a handshake that no server has answered stays one, whatever the client's side says.
        (HalfOpen, Direction::Forward) if nat => HalfOpen,
        _ if tcp_flags & RST != 0 => Reset,
        // Only the server's word shows that it didn't believe the RST, where its words pass here.
        (Reset, Direction::Reply) if !handshake && tcp_flags & FIN == 0 => Established,
        (Reset, Direction::Forward) if !nat && !handshake && tcp_flags & FIN == 0 => Established,
        (HalfOpen | Answered | Established, Direction::Forward) if tcp_flags & FIN != 0 => ClientClosing,
        (HalfOpen | Answered | Established, Direction::Reply) if tcp_flags & FIN != 0 => ServerClosing,
        (ClientClosing, Direction::Reply) | (ServerClosing, Direction::Forward) if tcp_flags & FIN != 0 => {
            Closed
        }
        // Only NAT sees the server's half of the handshake, and there it is needed: anyone can forge the client's.
        (HalfOpen, Direction::Reply) => Answered,
        (HalfOpen | Answered, Direction::Forward) if !handshake && tcp_flags & ACK != 0 => Established,
        (state, _) => state,
    };
}

/// Whether the flow's connection is closing or closed, so that its client may open the next one from the same port.
#[inline]
pub fn over(session: &Session) -> bool {
    matches!(session.state, State::ClientClosing | State::ServerClosing | State::Closed | State::Reset)
}

/// The client of a NATed flow opens its next connection from the same port: it goes to the server that the flow had, through
/// the same SNAT port. The server judges the SYN as if the client had sent it there itself (RFC 9293 §3.6.1), and if the
/// close was forged the connection that still lives answers with a challenge (RFC 5961 §4).
#[inline]
pub fn reopen(session: &mut Session) {
    session.state = State::Answered;
}

/// Ticks that a session may stay idle.
#[inline]
pub fn lifetime(session: &Session, timeouts: &Timeouts, server: &VirtualServer) -> u32 {
    match session.state {
        State::HalfOpen | State::Answered if server.protocol.number() == protocol::TCP => timeouts.half_open,
        State::Closed | State::Reset => timeouts.closed,
        // Of a close whose replies don't pass here the client's FIN is all that will ever be seen; if the server has more to
        // say, the client's ACKs keep the session.
        State::ClientClosing if session.snat_port == 0 => timeouts.closed,
        _ => server.idle_ticks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Forward, Reply};

    fn after(nat: bool, packets: &[(u8, Direction)]) -> State {
        let mut session = first(protocol::TCP, packets[0].0);
        session.snat_port = u16::from(nat);
        for (flags, direction) in &packets[1..] {
            advance(&mut session, protocol::TCP, *flags, *direction);
        }
        session.state
    }

    #[test]
    fn handshake_and_close_with_both_sides_in_sight() {
        let open = [(SYN, Forward), (SYN | ACK, Reply), (ACK, Forward)];
        let then = |more: &[(u8, Direction)]| after(true, &[&open[..], more].concat());
        assert_eq!(after(true, &open[..1]), State::HalfOpen);
        assert_eq!(after(true, &[open[0], open[0]]), State::HalfOpen);
        assert_eq!(after(true, &open[..2]), State::Answered);
        assert_eq!(after(true, &[open[0], open[2]]), State::HalfOpen, "no server has answered that ACK");
        assert_eq!(then(&[]), State::Established);
        assert_eq!(then(&[(FIN | ACK, Forward)]), State::ClientClosing);
        assert_eq!(then(&[(FIN | ACK, Forward), (FIN | ACK, Forward)]), State::ClientClosing);
        assert_eq!(then(&[(FIN | ACK, Reply)]), State::ServerClosing);
        assert_eq!(then(&[(FIN | ACK, Reply), (FIN | ACK, Forward), (ACK, Reply)]), State::Closed);
        assert_eq!(after(true, &[(SYN, Forward), (RST | ACK, Reply)]), State::Reset);
        assert_eq!(then(&[(RST, Forward)]), State::Reset);
        assert_eq!(then(&[(RST, Forward), (ACK, Reply)]), State::Established, "the server didn't believe it");
    }

    #[test]
    fn one_side_in_sight() {
        assert_eq!(after(false, &[(SYN, Forward), (SYN, Forward)]), State::HalfOpen);
        assert_eq!(after(false, &[(SYN, Forward), (ACK, Forward)]), State::Established);
        assert_eq!(after(false, &[(ACK, Forward)]), State::HalfOpen, "met in the middle");
        assert_eq!(after(false, &[(ACK, Forward), (ACK, Forward)]), State::Established);
        assert_eq!(after(false, &[(ACK, Forward), (FIN | ACK, Forward)]), State::ClientClosing);
        assert_eq!(after(false, &[(RST, Forward)]), State::Reset);
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(opens(protocol::TCP, SYN));
        assert!(opens(protocol::TCP, SYN | 0xc0)); // ECN setup, RFC 3168 §6.1.1
        assert!(!opens(protocol::TCP, SYN | ACK));
        assert!(!opens(protocol::UDP, SYN));
    }
}
