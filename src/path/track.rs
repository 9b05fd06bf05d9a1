//! How packets move a session's state, as far as expiry needs to know. The endpoints' stacks check sequence numbers; we
//! follow the control bits, and a forged one costs a flow its long idle time, not its real server: a closed session still
//! forwards.

use crate::table::session::{Direction, Session, State};
use crate::view::{Timeouts, VirtualServer};
use crate::wire::protocol;
use crate::wire::tcp::flags::{ACK, FIN, RST, SYN};

const CLIENT_FIN: u8 = 1;
const SERVER_FIN: u8 = 2;

/// The session that a flow starts with, by its first packet: a TCP flow that we meet in the middle is taken for
/// established. The real server and the rest are the caller's to fill in.
#[inline]
pub fn first(ip_protocol: u8, tcp_flags: u8) -> Session {
    let mut session = Session::default();
    if ip_protocol == protocol::TCP && !opens(ip_protocol, tcp_flags) {
        session.state = State::Established;
        advance(&mut session, ip_protocol, tcp_flags, Direction::Forward);
    }
    session
}

/// Whether the packet opens a connection.
#[inline]
pub fn opens(ip_protocol: u8, tcp_flags: u8) -> bool {
    ip_protocol == protocol::TCP && tcp_flags & (SYN | ACK | RST) == SYN
}

/// Moves `session` on by a packet.
#[inline]
pub fn advance(session: &mut Session, ip_protocol: u8, tcp_flags: u8, direction: Direction) {
    if ip_protocol != protocol::TCP {
        session.state = State::Established;
        return;
    }
    if tcp_flags & RST != 0 {
        session.state = State::Closed;
        return;
    }
    if tcp_flags & FIN != 0 {
        session.fins |= if direction == Direction::Forward { CLIENT_FIN } else { SERVER_FIN };
        let both = session.fins == CLIENT_FIN | SERVER_FIN;
        session.state = session.state.max(if both { State::Closed } else { State::Closing });
        return;
    }
    // The handshake is complete with the client's ACK; the server's SYN-ACK says nothing of the client.
    if session.state == State::HalfOpen && direction == Direction::Forward && tcp_flags & (SYN | ACK) == ACK {
        session.state = State::Established;
    }
}

/// Ticks that a session may stay idle.
#[inline]
pub fn lifetime(session: &Session, timeouts: &Timeouts, server: &VirtualServer) -> u32 {
    match session.state {
        State::HalfOpen if server.protocol.number() == protocol::TCP => timeouts.half_open,
        State::Closed => timeouts.closed,
        _ => server.idle_ticks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Direction::{Forward, Reply};

    fn after(packets: &[(u8, Direction)]) -> State {
        let mut session = first(protocol::TCP, packets[0].0);
        for (flags, direction) in &packets[1..] {
            advance(&mut session, protocol::TCP, *flags, *direction);
        }
        session.state
    }

    #[test]
    fn handshake_and_close() {
        assert_eq!(after(&[(SYN, Forward)]), State::HalfOpen);
        assert_eq!(after(&[(SYN, Forward), (SYN | ACK, Reply)]), State::HalfOpen);
        assert_eq!(after(&[(SYN, Forward), (SYN, Forward)]), State::HalfOpen);
        assert_eq!(after(&[(SYN, Forward), (SYN | ACK, Reply), (ACK, Forward)]), State::Established);
        assert_eq!(after(&[(ACK, Forward), (FIN | ACK, Forward)]), State::Closing);
        assert_eq!(after(&[(ACK, Forward), (FIN | ACK, Forward), (FIN | ACK, Forward)]), State::Closing);
        assert_eq!(after(&[(ACK, Forward), (FIN | ACK, Reply), (FIN | ACK, Forward)]), State::Closed);
        assert_eq!(
            after(&[(ACK, Forward), (FIN | ACK, Reply), (FIN | ACK, Forward), (ACK, Reply)]),
            State::Closed
        );
        assert_eq!(after(&[(SYN, Forward), (RST | ACK, Reply)]), State::Closed);
    }

    #[test]
    fn only_a_bare_syn_opens() {
        assert!(opens(protocol::TCP, SYN));
        assert!(opens(protocol::TCP, SYN | 0xc0)); // ECN setup, RFC 3168 §6.1.1
        assert!(!opens(protocol::TCP, SYN | ACK));
        assert!(!opens(protocol::UDP, SYN));
    }
}
