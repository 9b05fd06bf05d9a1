//! Who is to hold the log (MECHANISMS §6): every node, of which up to [`MAX_VOTERS`] vote, and the witnesses that there are.

use super::log::{MAX_VOTERS, Replica, ReplicaId};
use super::namespace::Namespace;

/// The replicas that the namespace asks for, where `now` are those that there are. Who votes goes on voting; where there is
/// room, the node with the lowest number votes, too.
///
/// None: a node without an address on the management network, or no node at all.
pub fn wanted(space: &Namespace, now: &[Replica]) -> Option<Vec<Replica>> {
    let votes = |id: ReplicaId| now.iter().any(|replica| replica.id == id && replica.votes);
    let mut nodes: Vec<_> = space.nodes().collect();
    nodes.sort_unstable_by_key(|(id, ..)| *id);
    let all: Option<Vec<Replica>> = nodes
        .into_iter()
        .map(|(id, name, spec)| {
            let id = ReplicaId::from(id);
            let address = spec.management?.to_string();
            Some(Replica { id, name: name.to_string(), address, votes: votes(id) })
        })
        .collect();
    let mut all = all.filter(|nodes| !nodes.is_empty())?;
    all.extend(now.iter().filter(|replica| replica.id.node().is_none()).cloned());
    let mut voters = all.iter().filter(|replica| replica.votes).count();
    for replica in all.iter_mut().filter(|replica| !replica.votes) {
        replica.votes = voters < MAX_VOTERS;
        voters += usize::from(replica.votes);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Addr;
    use crate::cluster::namespace::{Key, Name, NodeSpec, Object};

    fn space(nodes: u16) -> Namespace {
        let node = |n: u16| {
            let spec = NodeSpec {
                backplane: Addr::v4([10, 0, 0, n as u8 + 1]),
                workers: 1,
                weight: 1,
                management: Some(([192, 0, 2, n as u8 + 1], 7600).into()),
            };
            (Key::Node(Name::new(&format!("n{n:02}")).unwrap()), Object::Node(spec))
        };
        Namespace::draft((0..nodes).map(node)).0
    }

    fn voters(replicas: &[Replica]) -> Vec<u16> {
        replicas.iter().filter(|r| r.votes).map(|r| r.id.0).collect()
    }

    #[test]
    fn nodes_vote_while_there_is_room() {
        assert_eq!(wanted(&space(0), &[]), None);
        let five = wanted(&space(5), &[]).unwrap();
        assert_eq!(voters(&five), [0, 1, 2, 3, 4]);
        assert_eq!(five[4].address, "192.0.2.5:7600");
        let nine = wanted(&space(9), &five).unwrap();
        assert_eq!((nine.len(), voters(&nine)), (9, vec![0, 1, 2, 3, 4, 5, 6]));
        assert_eq!(wanted(&space(9), &nine), Some(nine));
    }

    #[test]
    fn voters_stay_and_witnesses_count() {
        let mut now = wanted(&space(8), &[]).unwrap();
        (now[2].votes, now[7].votes) = (false, true);
        assert_eq!(voters(&wanted(&space(8), &now).unwrap()), [0, 1, 3, 4, 5, 6, 7], "2 came later");
        let witness =
            Replica { id: ReplicaId::FIRST_WITNESS, name: "w".into(), address: "w:1".into(), votes: true };
        let two = wanted(&space(2), std::slice::from_ref(&witness)).unwrap();
        assert_eq!(voters(&two), [0, 1, 1000]);
        let eight = wanted(&space(8), &two).unwrap();
        assert_eq!(voters(&eight).len(), MAX_VOTERS, "the witness is one of them");
        assert!(eight.contains(&witness));
    }
}
