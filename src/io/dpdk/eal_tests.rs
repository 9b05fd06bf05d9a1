use super::*;

fn config(hugepages: bool, args: &[&str]) -> EalConfig {
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    EalConfig { hugepages, memory_mb: 128, file_prefix: "t".into(), args }
}

#[test]
fn pci_is_scanned_only_for_pci_devices() {
    let virtual_only = arguments(&config(true, &[]), &[DeviceName::parse("net_null0")], "0,1");
    assert!(virtual_only.contains(&"--no-pci".to_owned()));
    let both = [DeviceName::parse("net_null0"), DeviceName::parse("3b:00.0,x=1")];
    let mixed = arguments(&config(true, &[]), &both, "0,1");
    assert!(!mixed.contains(&"--no-pci".to_owned()));
    assert!(mixed.windows(2).any(|w| w == ["-a", "0000:3b:00.0,x=1"]));
}

#[test]
fn memory_comes_from_hugepages_or_not() {
    let huge = arguments(&config(true, &[]), &[], "0");
    assert!(huge.contains(&"--in-memory".to_owned()) && !huge.contains(&"--no-huge".to_owned()));
    let ordinary = arguments(&config(false, &[]), &[], "0");
    assert!(ordinary.contains(&"--no-huge".to_owned()) && !ordinary.contains(&"--in-memory".to_owned()));
}

#[test]
fn arguments_of_the_configuration_come_last_and_win() {
    let args = arguments(&config(true, &["-l", "3", "--iova-mode=va"]), &[], "0");
    assert_eq!(args[args.len() - 3..], ["-l", "3", "--iova-mode=va"]);
    assert!(!args.contains(&"--lcores".to_owned()), "DPDK refuses two core lists");
}

#[test]
fn missing_hugepages_are_counted_and_the_remedy_is_named() {
    let root = std::env::temp_dir().join(format!("steerage-hugepages-{}", std::process::id()));
    for (size, free, all) in [("hugepages-2048kB", "10\n", "20\n"), ("hugepages-1048576kB", "0\n", "1\n")] {
        let dir = root.join(size);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("free_hugepages"), free).unwrap();
        std::fs::write(dir.join("nr_hugepages"), all).unwrap();
    }
    let enough = enough_hugepages(&root, 20);
    let short = enough_hugepages(&root, 64);
    std::fs::remove_dir_all(&root).unwrap();
    assert_eq!(enough, Ok(()));
    assert_eq!(short, Err(DpdkError::NoHugepages { wanted_mb: 64, free_mb: 20, pages: 42 }));
    assert!(short.unwrap_err().to_string().contains("vm.nr_hugepages=42"));
}
