//! Whatever stands in the files: no panic, and each error on a line that exists.

use super::documents::examples;
use super::*;
use proptest::prelude::*;

/// Loads `node` and `cluster` as the two files.
fn load_texts(node: &str, cluster: &str) {
    let read = |path: &Path| match path.to_str() {
        Some("node.example.toml") => Ok(node.to_owned()),
        Some("cluster.example.toml") => Ok(cluster.to_owned()),
        _ => Err(io::ErrorKind::NotFound.into()),
    };
    let Err(errors) = load_from(&read, Path::new("node.example.toml"), Some(&CORES)) else { return };
    assert!(!errors.0.is_empty());
    for error in &errors.0 {
        let text = match error.file.to_str() {
            Some("node.example.toml") => node,
            Some("cluster.example.toml") => cluster,
            other => panic!("an error in {other:?}: {error}"),
        };
        let lines = text.split_inclusive('\n').count().max(1);
        assert!((1..=lines).contains(&error.line), "{error} of {lines} lines");
        assert!(!error.message.is_empty() && !error.to_string().contains('\0'));
    }
}

/// Puts `with` in place of `cut` bytes from about `at` (a fraction of 2^16) of `text`.
fn mutate(text: &mut Vec<u8>, (at, cut, with): &(u16, usize, Vec<u8>)) {
    let at = usize::from(*at) * text.len() / 65_536;
    let end = (at + cut).min(text.len());
    text.splice(at..end, with.iter().copied());
}

/// Pieces that mean something here, and random bytes.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "\n",
        "=",
        "\"",
        "[",
        "]",
        "[[",
        "{",
        "}",
        ".",
        "#",
        "0",
        "-1",
        "99999999999999999999",
        "1e9",
        "true",
        "\n[",
        "\n[[port]]\n",
        "\n[[virtual_server]]\n",
        "\nname = \"n1\"\n",
        "\nworkers = 64\n",
        "::",
        "/0",
        "/200",
        "\"all\"",
        "0.0.0.0/0",
        "\r\n",
        "'''",
        "\"\"\"",
        "1979-05-27",
        "inf",
        "\nmaglev_slots = 4\n",
        "[cluster]\n",
        "é",
    ]);
    prop_oneof![
        3 => known.prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes(node in prop::collection::vec(any::<u8>(), 0..200), cluster in prop::collection::vec(any::<u8>(), 0..200)) {
        let node = String::from_utf8_lossy(&node);
        load_texts(&node, &String::from_utf8_lossy(&cluster));
        load_texts(&format!("cluster = \"cluster.example.toml\"\n{node}"), &String::from_utf8_lossy(&cluster));
    }

    #[test]
    fn mutated_examples(
        edits in prop::collection::vec((any::<bool>(), (any::<u16>(), 0..12usize, piece())), 1..8)
    ) {
        let mut node = examples(Path::new("node.example.toml")).unwrap().into_bytes();
        let mut cluster = examples(Path::new("cluster.example.toml")).unwrap().into_bytes();
        for (in_node, edit) in &edits {
            mutate(if *in_node { &mut node } else { &mut cluster }, edit);
        }
        load_texts(&String::from_utf8_lossy(&node), &String::from_utf8_lossy(&cluster));
    }

    /// Mutations of the values alone: the syntax stays good, so that every check runs.
    #[test]
    fn mutated_values(edits in prop::collection::vec((any::<bool>(), any::<u16>(), value()), 1..6)) {
        let mut files = [examples(Path::new("node.example.toml")).unwrap(), examples(Path::new("cluster.example.toml")).unwrap()];
        for (in_node, at, value) in &edits {
            let text = &mut files[usize::from(!in_node)];
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            let settings: Vec<usize> = (0..lines.len()).filter(|i| !lines[*i].starts_with('#') && lines[*i].contains(" = ")).collect();
            let line = settings[usize::from(*at) * settings.len() / 65_536];
            let key = lines[line].split_once(" = ").unwrap().0.to_owned();
            lines[line] = format!("{key} = {value}");
            *text = lines.join("\n");
        }
        load_texts(&files[0], &files[1]);
    }
}

fn value() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "0",
        "1",
        "64",
        "65535",
        "65536",
        "-1",
        "\"\"",
        "\"n1\"",
        "\"n2\"",
        "\"all\"",
        "\"edge\"",
        "\"front\"",
        "\"back\"",
        "\"backplane\"",
        "\"10.10.0.11\"",
        "\"10.20.0.11\"",
        "\"10.10.0.101\"",
        "\"203.0.113.1\"",
        "\"fd10::11\"",
        "\"0.0.0.0/0\"",
        "\"10.10.0.0/24\"",
        "\"::/0\"",
        "\"1s\"",
        "\"0s\"",
        "[]",
        "[1, 1]",
        "[\"n1\"]",
        "[\"10.10.0.11/32\"]",
        "{}",
        "{ name = 1 }",
        "true",
        "\"nat\"",
        "\"ipip\"",
        "\"udp\"",
        "\"local\"",
        "\"lab\"",
        "\"latency\"",
        "600",
        "9600",
    ]);
    known.prop_map(str::to_owned)
}
