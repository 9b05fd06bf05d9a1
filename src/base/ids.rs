//! Small integers with a meaning of their own, so that one can't stand for another.

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[repr(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The id as an array index.
            #[inline]
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A node of the cluster: its index in the View's node list.
    NodeId(u16)
);
id!(
    /// One life of a node process; a restart takes a higher one. Zero: not known yet.
    Incarnation(u32)
);
id!(
    /// A worker (pinned core) within one node.
    WorkerId(u16)
);
id!(
    /// A node group (MECHANISMS §2).
    GroupId(u16)
);
id!(
    /// One of a group's 4096 placement buckets.
    Bucket(u16)
);
id!(
    /// A virtual server: VIP, port and protocol.
    VirtualServerId(u32)
);
id!(
    /// A real server as a member of one virtual server. An id keeps its meaning while any session may name it.
    RealServerId(u32)
);
id!(
    /// A SNAT address of a group.
    SnatId(u16)
);
id!(
    /// A network device of this node.
    PortId(u8)
);
id!(
    /// An IP interface of this node: a port and, if tagged, a VLAN.
    InterfaceId(u8)
);
