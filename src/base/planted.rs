//! Faults planted on purpose, to prove that the simulator, or a test with real nodes, finds such ones. Without the feature
//! `sim` there are none, and the product compiles to what it would be without the questions.

/// A fault that can be planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Flows are hashed without the cluster's key: who knows the algorithm can send all to one bucket.
    HashUnkeyed,
    /// A steering session stays in use when its owner has begun another life.
    SteeringOutlivesPeer,
    /// A steered packet is treated as if it had just been received.
    StageIgnored,
    /// The low bits of a SNAT port name another bucket than the flow's.
    WrongPortClass,
    /// Expiry takes sessions that are in use.
    LiveSessionExpires,
    /// NAT leaves the transport checksum as it was.
    ChecksumStale,
    /// The owner of a bucket doesn't ask the one before it for flows that it doesn't know, nor looks for their shared state.
    PreviousOwnerForgotten,
    /// The owner of a bucket doesn't ask in the group that a virtual server was in before for flows that it doesn't know.
    FormerGroupForgotten,
    /// A node serves without asking for its lease.
    LeaseUnchecked,
    /// A lease is counted from the answer to a request for it, not from when that was sent.
    LeaseFromAnswer,
    /// A voter renews the lease of a node that an entry in its log takes out (planted in the model of the log).
    FenceIgnored,
    /// Who takes over from the dead does not wait for their lease to end.
    NoQuarantine,
    /// A node serves what it is about to give away until others have the View by which it is theirs.
    NothingCeded,
    /// The leader does not wait until all have prepared a View.
    InForceEarly,
    /// A node becomes the owner of a bucket that it still learns.
    IncompleteOwns,
    /// One node leaves out every fiftieth entry.
    EntrySkipped,
    /// One node leaves out every fiftieth entry in every other of its lives.
    EntrySkippedAtTimes,
    /// The same, and it does not have its state given anew.
    NothingRestored,
    /// Of a snapshot that is installed one half is kept from before.
    SnapshotTorn,
    /// A write is acknowledged before it is committed (planted in the model of the log).
    AcknowledgedEarly,
    /// A session's packets go to whom a new flow's would.
    ServerChosenAnew,
    /// A frame that a node sends in front leaves twice (planted in the simulator's wires, not in the path).
    SentTwice,
    /// The buffer of a packet that goes no further is not given back.
    BufferForgotten,
    /// A worker panics once it has received a hundred frames in front (planted in the simulator's turn, not in the path).
    WorkerPanics,
    /// The owner of shared state answers without a lease.
    StateUnleased,
    /// Records of shared state are taken whatever their epoch, and entries whatever was missed since.
    StateEpochIgnored,
    /// A write of shared state is acknowledged before any copy has it.
    StateUnreplicated,
    /// A copy says of one write in eight that it has it, and hasn't.
    UpdateDropped,
    /// Who takes a bucket over from a dead owner makes no sessions of the state that it has of it.
    StateUninherited,
    /// Which real server a client has is not looked at when it opens a connection.
    ClientForgotten,
    /// The node's software is the last release's, as far as other nodes can tell.
    SoftwareOld,
    /// A node speaks the newest wire version without waiting until all can.
    NewestSpoken,
}

#[cfg(feature = "sim")]
mod switch {
    use super::Bug;
    use std::cell::Cell;
    use std::str::FromStr;
    use std::sync::OnceLock;

    /// What threads begin with.
    static EVERYWHERE: OnceLock<Bug> = OnceLock::new();

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = Cell::new(EVERYWHERE.get().copied());
    }

    impl Bug {
        /// All of them.
        pub const ALL: [Self; 32] = [
            Self::HashUnkeyed,
            Self::SteeringOutlivesPeer,
            Self::StageIgnored,
            Self::WrongPortClass,
            Self::LiveSessionExpires,
            Self::ChecksumStale,
            Self::PreviousOwnerForgotten,
            Self::FormerGroupForgotten,
            Self::LeaseUnchecked,
            Self::LeaseFromAnswer,
            Self::FenceIgnored,
            Self::NoQuarantine,
            Self::NothingCeded,
            Self::InForceEarly,
            Self::IncompleteOwns,
            Self::EntrySkipped,
            Self::EntrySkippedAtTimes,
            Self::NothingRestored,
            Self::SnapshotTorn,
            Self::AcknowledgedEarly,
            Self::ServerChosenAnew,
            Self::SentTwice,
            Self::BufferForgotten,
            Self::WorkerPanics,
            Self::StateUnleased,
            Self::StateEpochIgnored,
            Self::StateUnreplicated,
            Self::UpdateDropped,
            Self::StateUninherited,
            Self::ClientForgotten,
            Self::SoftwareOld,
            Self::NewestSpoken,
        ];

        /// Its name on the command line.
        pub fn name(self) -> &'static str {
            match self {
                Self::HashUnkeyed => "hash-unkeyed",
                Self::SteeringOutlivesPeer => "steering-outlives-peer",
                Self::StageIgnored => "stage-ignored",
                Self::WrongPortClass => "wrong-port-class",
                Self::LiveSessionExpires => "live-session-expires",
                Self::ChecksumStale => "checksum-stale",
                Self::PreviousOwnerForgotten => "previous-owner-forgotten",
                Self::FormerGroupForgotten => "former-group-forgotten",
                Self::LeaseUnchecked => "lease-unchecked",
                Self::LeaseFromAnswer => "lease-from-answer",
                Self::FenceIgnored => "fence-ignored",
                Self::NoQuarantine => "no-quarantine",
                Self::NothingCeded => "nothing-ceded",
                Self::InForceEarly => "in-force-early",
                Self::IncompleteOwns => "incomplete-owns",
                Self::EntrySkipped => "entry-skipped",
                Self::EntrySkippedAtTimes => "entry-skipped-at-times",
                Self::NothingRestored => "nothing-restored",
                Self::SnapshotTorn => "snapshot-torn",
                Self::AcknowledgedEarly => "acknowledged-early",
                Self::ServerChosenAnew => "server-chosen-anew",
                Self::SentTwice => "sent-twice",
                Self::BufferForgotten => "buffer-forgotten",
                Self::WorkerPanics => "worker-panics",
                Self::StateUnleased => "state-unleased",
                Self::StateEpochIgnored => "state-epoch-ignored",
                Self::StateUnreplicated => "state-unreplicated",
                Self::UpdateDropped => "update-dropped",
                Self::StateUninherited => "state-uninherited",
                Self::ClientForgotten => "client-forgotten",
                Self::SoftwareOld => "software-old",
                Self::NewestSpoken => "newest-spoken",
            }
        }
    }

    impl FromStr for Bug {
        type Err = String;

        /// By its [`name`](Self::name); else says which there are.
        fn from_str(text: &str) -> Result<Self, String> {
            let found = Self::ALL.into_iter().find(|bug| bug.name() == text);
            found.ok_or_else(|| format!("there are {}", Self::ALL.map(Self::name).join(", ")))
        }
    }

    /// Whether `bug` is planted in this thread.
    #[inline]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    /// Plants a fault in this thread, or takes it out.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Plants a fault in this thread and in all that begin later, for the life of the process.
    pub fn plant_everywhere(bug: Bug) {
        plant(Some(*EVERYWHERE.get_or_init(|| bug)));
    }
}

#[cfg(feature = "sim")]
pub use switch::{is, plant, plant_everywhere};

/// Never.
#[cfg(not(feature = "sim"))]
#[inline(always)]
pub const fn is(_: Bug) -> bool {
    false
}
