use super::*;

/// A file in a directory that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("steerage-pcap-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn caps() -> PortCaps {
    PortCaps { mac: Mac([2, 0, 0, 0, 0, 1]), mtu: 1500 }
}

/// A capture file in either byte order and resolution.
fn file(big: bool, nanos: bool, frames: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let half = |n: u16| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let mut data = word(if nanos { MAGIC_NANOS } else { MAGIC_MICROS }).to_vec();
    data.extend([half(2), half(4)].concat());
    data.extend([word(0), word(0), word(65_535), word(1)].concat());
    for (seconds, fraction, bytes) in frames {
        let length = bytes.len() as u32;
        data.extend([word(*seconds), word(*fraction), word(length), word(length + 4)].concat());
        data.extend(bytes);
    }
    data
}

fn frames(n: u8) -> Vec<(u32, u32, Vec<u8>)> {
    (0..n).map(|i| (1000 + u32::from(i), 7 * u32::from(i), vec![i; 60 + usize::from(i)])).collect()
}

#[test]
fn both_byte_orders_and_resolutions_go_through_unchanged() {
    let scratch = Scratch::new("orders");
    for (big, nanos) in [(false, false), (false, true), (true, false), (true, true)] {
        let (input, output) = (scratch.file("in"), scratch.file("out"));
        let given = frames(70);
        std::fs::write(&input, file(big, nanos, &given)).unwrap();
        let pools = MemoryPools::new(64, 2048);
        let before = pools.free();
        let mut port = PcapPort::new(&input, &output, caps(), pools.clone()).unwrap();
        let mut rounds = 0;
        while !port.exhausted() {
            let mut burst = Burst::new();
            // One at a time, so that each answer has its own frame's time.
            burst.extend((0..31).map_while(|_| pools.data.alloc()));
            assert_eq!(port.rx(&mut burst), 1);
            let mut answer: Burst<_> = burst.pop().into_iter().collect();
            assert_eq!(port.tx(&mut answer), 0);
            rounds += 1;
        }
        assert_eq!(rounds, 70);
        assert_eq!(port.rx(&mut Burst::new()), 0, "the input is at its end");
        port.finish().unwrap();
        assert_eq!(pools.free(), before);
        let written = parse(&output, &std::fs::read(&output).unwrap(), 2048).unwrap();
        assert_eq!(written.nanos, nanos);
        let written: Vec<_> = written.records.into_iter().map(|r| (r.seconds, r.fraction, r.bytes)).collect();
        assert_eq!(written, given);
    }
}

#[test]
fn a_lack_of_buffers_delays_frames_and_loses_none() {
    let scratch = Scratch::new("buffers");
    std::fs::write(scratch.file("in"), file(false, false, &frames(20))).unwrap();
    let pools = MemoryPools::new(8, 2048);
    let mut port = PcapPort::new(&scratch.file("in"), &scratch.file("out"), caps(), pools).unwrap();
    let mut seen = Vec::new();
    while !port.exhausted() {
        let mut burst = Burst::new();
        assert!(port.rx(&mut burst) > 0);
        seen.extend(burst.iter().map(|f| f.head()[0]));
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[test]
fn every_cut_is_found() {
    let path = Path::new("x.pcap");
    let whole = file(false, false, &frames(3));
    let ends = [FILE_HEADER, FILE_HEADER + 76, FILE_HEADER + 76 + 77, whole.len()];
    for length in 0..=whole.len() {
        match parse(path, &whole[..length], 2048) {
            Ok(capture) => assert_eq!(ends.iter().position(|&e| e == length), Some(capture.records.len())),
            Err(PcapError::Truncated { record, .. }) => {
                assert!(!ends.contains(&length));
                assert_eq!(record, ends.iter().filter(|&&e| e < length).count(), "at {length}");
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn other_files_are_refused_with_a_reason() {
    let path = Path::new("x.pcap");
    let says = |data: &[u8]| parse(path, data, 100).unwrap_err().to_string();
    assert_eq!(says(b"GET / HTTP/1.1\r\n"), "x.pcap: not a pcap file (it begins with 0x47455420)");
    assert_eq!(
        says(&[0x0a, 0x0d, 0x0d, 0x0a, 0, 0]),
        "x.pcap: a pcapng file: convert it with `editcap -F pcap`"
    );
    let mut raw_ip = file(false, false, &[]);
    raw_ip[20] = 101;
    assert_eq!(says(&raw_ip), "x.pcap: link type 101, and only Ethernet (1) can be read");
    let long = file(true, false, &[(0, 0, vec![0; 101])]);
    assert_eq!(says(&long), "x.pcap: record 1 has 101 bytes, and a buffer holds 100");
    let mut absurd = file(false, false, &frames(1));
    absurd[FILE_HEADER + 8..FILE_HEADER + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(says(&absurd).contains("record 1 has 4294967295 bytes"));
}

#[test]
fn the_configuration_names_both_files() {
    let scratch = Scratch::new("open");
    std::fs::write(scratch.file("in"), file(false, false, &frames(1))).unwrap();
    let config = |device: String, queues| DeviceConfig {
        name: "front".into(),
        device,
        queues,
        mtu: 1500,
        rx_descriptors: 64,
        tx_descriptors: 64,
        promiscuous: true,
    };
    let open = |device: String, queues| open(&config(device, queues), Mac([2; 6]), MemoryPools::new(8, 2048));
    let good = format!("pcap:{}:{}", scratch.file("in").display(), scratch.file("out").display());
    let mut device = open(good.clone(), 1).ok().unwrap();
    assert_eq!(device.queues[0].rx(&mut Burst::new()), 1);
    assert_eq!(device.monitor.stats().rx_packets, 1);
    for bad in ["pcap:", "pcap:a", "pcap::b", "pcap:a:"] {
        assert!(matches!(open(bad.into(), 1), Err(PcapError::Name(_))), "{bad}");
    }
    assert!(matches!(open(good, 2), Err(PcapError::Queues(_))));
    let missing = open(format!("pcap:{}:x", scratch.file("none").display()), 1).err().unwrap();
    assert!(missing.to_string().contains("none: No such file"));
}

#[test]
fn a_failed_write_is_remembered() {
    let scratch = Scratch::new("full");
    let one = file(false, false, &[(0, 0, vec![0; 1400])]);
    std::fs::write(scratch.file("in"), one).unwrap();
    let pools = MemoryPools::new(8, 2048);
    let mut port = PcapPort::new(&scratch.file("in"), Path::new("/dev/full"), caps(), pools.clone()).unwrap();
    let refused: usize =
        (0..100).map(|_| port.tx(&mut pools.data.frame(&[1; 1400]).into_iter().collect())).sum();
    assert!(refused > 0);
    assert!(matches!(port.finish(), Err(PcapError::Io { .. })));
}

#[test]
fn what_is_written_is_used_once() {
    let scratch = Scratch::new("distinct");
    let at = |name: &str| scratch.file(name).display().to_string();
    let [a, b, c, d] = ["a", "b", "c", "d"].map(at);
    std::fs::write(&a, "").unwrap();
    std::os::unix::fs::symlink(&a, &b).unwrap();
    std::fs::hard_link(&a, &c).unwrap();
    let clash = |devices: &[String]| {
        distinct(devices.iter().map(String::as_str)).err().map(|(i, error)| (i, error.to_string()))
    };
    let one = |input: &str, output: &str| format!("pcap:{input}:{output}");
    for output in [&a, &b, &c] {
        let (i, said) = clash(&[one(&a, output)]).unwrap();
        assert!(i == 0 && said.contains("the same port"), "{said}");
    }
    let detour = format!("{}/../{}/d", scratch.0.display(), scratch.0.file_name().unwrap().display());
    let (i, said) = clash(&[one(&a, &d), one(&a, &detour)]).unwrap();
    assert!(i == 0 && said.contains("another port"), "{said}");
    assert!(clash(&[one(&a, &d), one(&d, &at("e"))]).is_some(), "written and read");
    assert_eq!(clash(&[one(&a, &d), one(&b, &at("e")), "net_null0".into()]), None, "read twice");
    assert_eq!(clash(&[one(&a, "/dev/null"), one(&a, "/dev/null")]), None);
    assert!(!scratch.file("d").exists(), "looking makes no file");
}

#[test]
fn an_output_that_fails_only_at_the_end_is_told() {
    let scratch = Scratch::new("late");
    std::fs::write(scratch.file("in"), file(false, false, &frames(1))).unwrap();
    let pools = MemoryPools::new(8, 2048);
    let port = PcapPort::new(&scratch.file("in"), Path::new("/dev/full"), caps(), pools).unwrap();
    let output = port.output();
    assert!(output.result().is_ok(), "the header is still in the buffer");
    drop(port);
    let error = output.result().unwrap_err().to_string();
    assert!(error.contains("/dev/full: ") && error.contains("space"), "{error}");
}
