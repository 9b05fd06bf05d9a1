//! ARP for IPv4 over Ethernet (RFC 826).

use super::{Malformed, array, be16, need, put};
use crate::base::{Addr, Mac};

/// Bytes of an Ethernet/IPv4 ARP message.
pub const LEN: usize = 28;

/// What the message asks or says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has it.
    Reply,
}

/// An ARP message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Question or answer.
    pub operation: Operation,
    /// Sender's hardware address.
    pub sender_mac: Mac,
    /// Sender's protocol address (IPv4).
    pub sender: Addr,
    /// Target's hardware address; anything in a request.
    pub target_mac: Mac,
    /// Target's protocol address (IPv4).
    pub target: Addr,
}

impl Arp {
    /// Reads a message; other hardware, protocols and operations are `Malformed::Value`.
    pub fn parse(b: &[u8]) -> Result<Self, Malformed> {
        need(b, LEN)?;
        if be16(b, 0) != 1 || be16(b, 2) != super::eth::ethertype::IPV4 || b[4] != 6 || b[5] != 4 {
            return Err(Malformed::Value);
        }
        let operation = match be16(b, 6) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Malformed::Value),
        };
        Ok(Self {
            operation,
            sender_mac: Mac(array(b, 8)),
            sender: Addr::v4(array(b, 14)),
            target_mac: Mac(array(b, 18)),
            target: Addr::v4(array(b, 24)),
        })
    }

    /// Writes the message into the first [`LEN`] bytes of `out`.
    pub fn write(&self, out: &mut [u8]) {
        put(out, 0, 1u16.to_be_bytes());
        put(out, 2, super::eth::ethertype::IPV4.to_be_bytes());
        put(out, 4, [6, 4]);
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        put(out, 6, operation.to_be_bytes());
        put(out, 8, self.sender_mac.0);
        put(out, 14, self.sender.v4_bytes());
        put(out, 18, self.target_mac.0);
        put(out, 24, self.target.v4_bytes());
    }
}
