//! The `steerage` command.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::io::{IsTerminal, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
#[cfg(feature = "sim")]
use steerage::base::planted::{self, Bug};
use steerage::cluster::namespace::health::DEFAULT_INTERVAL;
use steerage::cluster::namespace::text::parse_duration;
use steerage::cluster::namespace::{HealthSpec, Probe};
use steerage::manage::config::{self, Config};
use steerage::manage::explain::{self, Request, Tuple};
use steerage::manage::health::Outcome;
use steerage::run::admin::{self, Terminal, Which};
use steerage::run::log::witness;
use steerage::run::{self, Exit, authority, client, show};
use tracing_subscriber::EnvFilter;

/// A clustered layer-4 load balancer.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a node until SIGTERM, SIGINT or SIGHUP.
    ///
    /// Messages go to standard error; the environment variable STEERAGE_LOG chooses which (`debug`, `warn,dpdk=trace`).
    /// Exit codes: 0 stopped by a signal, 1 an error, 3 a worker panicked.
    Run {
        /// The node file.
        #[arg(short, long, value_name = "FILE")]
        config: PathBuf,
        /// Begin a new cluster with what the cluster file says, together with the other nodes in it. Of no effect if the
        /// node's log has begun.
        #[arg(long)]
        new_cluster: bool,
        /// Let capsule's runtime start DPDK and run the workers
        #[cfg(feature = "capsule")]
        #[arg(long)]
        capsule: bool,
        /// Plant a fault in the node, to see that a test finds it
        #[cfg(feature = "sim")]
        #[arg(long, value_name = "NAME")]
        plant: Option<Bug>,
    },
    /// Check a node file and what it names, and print everything that is wrong.
    Check {
        /// The node file.
        file: PathBuf,
    },
    /// Show a running node's statistics.
    Stats(Stats),
    /// Tell what becomes of the packets of a tuple, and why.
    ///
    /// A running node answers with what its sessions and forwarding tables say now; with -c the files alone are read, and the
    /// answer is what a fresh flow gets. A reply of a NATed flow is asked for as it comes: from the real server to the SNAT
    /// address and port.
    #[command(after_help = "Examples:\n  \
        steerage explain tcp 198.51.100.7:40000 10.0.0.1:80\n  \
        steerage explain udp '[2001:db8::7]:5353' '[2001:db8:1::53]:53' --receiver n2\n  \
        steerage explain tcp 198.51.100.7:40000 10.0.0.1:80 -c /etc/steerage/node.toml")]
    Explain(Explain),
    /// Probe a real server once, as a health check does, and print what it comes to and the time it took.
    ///
    /// The probe leaves through this machine's kernel. Exit codes: 0 good; 1 bad, or it could not be made.
    #[command(after_help = "Examples:\n  \
        steerage probe --type tcp --target 10.0.0.1:80\n  \
        steerage probe --type https --target '[2001:db8::1]:443' --host www.example.com --path /health --verify\n  \
        steerage probe --type udp --target 10.0.0.1:7 --send ping --expect ping\n  \
        steerage probe --type icmp --target 10.0.0.1")]
    Probe(ProbeOnce),
    #[command(flatten)]
    Admin(admin::Command),
    /// Make what a cluster's nodes know each other by.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Run a witness until SIGTERM, SIGINT or SIGHUP: a process that votes, for clusters of two nodes.
    Witness {
        /// The witness's file.
        file: PathBuf,
    },
}

#[derive(Args)]
struct ProbeOnce {
    /// What the probe does: `tcp`, `http`, `https`, `udp`, `icmp`
    #[arg(long = "type", value_name = "TYPE", value_parser = probe_type)]
    probe: Probe,
    /// Address and port; for `icmp` the address alone
    #[arg(long, value_name = "ADDRESS[:PORT]")]
    target: String,
    /// How long it may take as a whole
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    timeout: Duration,
    /// The path asked for, with its query [default: /]
    #[arg(long)]
    path: Option<String>,
    /// The `Host` header and TLS's server name [default: the address]
    #[arg(long)]
    host: Option<String>,
    /// The certificate has to be valid for the host
    #[arg(long)]
    verify: bool,
    /// The status codes that are good [default: 200 to 399]
    #[arg(long, value_name = "CODE,…", value_delimiter = ',')]
    expect_status: Vec<u16>,
    /// A text that the body has to hold
    #[arg(long, value_name = "TEXT")]
    expect_body: Option<String>,
    /// The datagram
    #[arg(long, value_name = "TEXT")]
    send: Option<String>,
    /// A text that the answering datagram has to hold
    #[arg(long, value_name = "TEXT")]
    expect: Option<String>,
}

#[derive(Subcommand)]
enum Cluster {
    /// Make a certificate authority, the cluster's secret, and a certificate and a key for each node.
    Init {
        /// Where they go; nothing that is there already is overwritten.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Names of nodes and witnesses.
        #[arg(long = "node", value_name = "NAME", num_args = 1.., required = true)]
        nodes: Vec<String>,
    },
    /// Make a certificate and a key for one more node or witness.
    Certificate {
        /// Where `cluster init` has put the authority.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The node's name.
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Args)]
struct Explain {
    /// `tcp` or `udp`
    protocol: String,
    /// Address and port that the packet comes from; an IPv6 address in brackets
    #[arg(value_name = "SOURCE:PORT")]
    source: String,
    /// Address and port that it goes to
    #[arg(value_name = "DESTINATION:PORT")]
    destination: String,
    /// The node that receives the packet [default: the one that is asked]
    #[arg(short, long, value_name = "NODE")]
    receiver: Option<String>,
    /// The admin socket of the node to ask [default: the only one in /run/steerage]
    #[arg(short, long, value_name = "PATH", conflicts_with = "config")]
    socket: Option<PathBuf>,
    /// Ask no node, but read this node file
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Stats {
    #[command(flatten)]
    which: Which,
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Show servers without traffic, too
    #[arg(long, conflicts_with = "json")]
    all: bool,
}

fn main() -> ExitCode {
    let verb = Command::parse().verb;
    #[cfg(feature = "sim")]
    if let Verb::Run { plant: Some(bug), .. } = &verb {
        planted::plant_everywhere(*bug);
        say(&format!("steerage: {} is planted in this node: it is broken on purpose", bug.name()));
    }
    match verb {
        #[cfg(feature = "capsule")]
        Verb::Run { config, new_cluster, capsule: true, .. } => run(&config, new_cluster, run::capsule::run),
        Verb::Run { config, new_cluster, .. } => run(&config, new_cluster, run::run),
        Verb::Check { file } => end(check(&file)),
        Verb::Stats(stats) => end(show_stats(&stats)),
        Verb::Explain(asked) => end(explain(&asked)),
        Verb::Probe(asked) => end(probe(asked)),
        Verb::Admin(command) => end(admin::run(command, &mut Screen).map(|()| String::new())),
        Verb::Cluster(Cluster::Init { directory, nodes }) => end(made(authority::init(&directory, &nodes))),
        Verb::Cluster(Cluster::Certificate { directory, name }) => {
            end(made(authority::certificate(&directory, &name)))
        }
        Verb::Witness { file } => {
            log_to_standard_error();
            end(witness::run(&file).map(|()| String::new()).map_err(|error| error.to_string()))
        }
    }
}

fn made(files: Result<Vec<PathBuf>, authority::AuthorityError>) -> Result<String, String> {
    let files = files.map_err(|error| error.to_string())?;
    Ok(files.iter().map(|file| format!("{}\n", file.display())).collect())
}

fn log_to_standard_error() {
    let asked = std::env::var("STEERAGE_LOG").ok().filter(|asked| !asked.is_empty());
    let asked = asked.as_deref().unwrap_or("info");
    // openraft tells of each packet that gets no answer; the log's own messages say what matters of that.
    let filter = EnvFilter::builder().parse_lossy(format!("openraft=off,{asked}"));
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .with_target(false)
        .init();
}

fn run(config: &Path, new_cluster: bool, node: fn(&Path, bool) -> Result<(), Exit>) -> ExitCode {
    log_to_standard_error();
    match node(config, new_cluster) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            say(&format!("steerage: {exit}"));
            ExitCode::from(exit.code())
        }
    }
}

fn check(file: &Path) -> Result<String, String> {
    let config = config::load(file).map_err(|errors| errors.to_string())?;
    Ok(format!("{}: ok\n{}", file.display(), summary(&config)))
}

fn summary(config: &Config) -> String {
    let me = &config.cluster.nodes[config.me.index()];
    let cores = if config.workers.cores.is_empty() {
        "not pinned".to_owned()
    } else {
        format!("on cores {}", words(config.workers.cores.iter()))
    };
    let ports = config.ports.iter().map(|p| format!("{} ({})", p.device.name, p.device.device));
    let servers = config.virtual_servers.iter().map(|(_, v)| v.name.as_str());
    let real: usize = config.virtual_servers.iter().map(|(_, v)| v.real_servers.len()).sum();
    format!(
        "  node             {} ({} of {} in the cluster)\n  workers          {}, {cores}\n  \
         ports            {}\n  virtual servers  {} with {real} real servers: {}\n  admin socket     {}\n",
        me.name,
        config.me.index() + 1,
        config.cluster.nodes.len(),
        config.workers.count,
        words(ports),
        config.virtual_servers.len(),
        words(servers),
        config.admin_socket.display(),
    )
}

fn words<T: ToString>(of: impl Iterator<Item = T>) -> String {
    of.map(|word| word.to_string()).collect::<Vec<_>>().join(", ")
}

fn show_stats(stats: &Stats) -> Result<String, String> {
    let socket = stats.which.socket()?;
    let (body, value) = ask(&socket, "/v1/stats")?;
    Ok(if stats.json { body + "\n" } else { show::tables(&value, stats.all) })
}

/// What a node answers, as it is and as a value.
fn ask(socket: &Path, target: &str) -> Result<(String, serde_json::Value), String> {
    let answer = client::get(socket, target).map_err(|error| error.to_string())?;
    let value: serde_json::Value = serde_json::from_str(&answer.body)
        .map_err(|error| format!("{}: the answer is no JSON: {error}", socket.display()))?;
    let why = value["error"].as_str().unwrap_or(&answer.body);
    match answer.status {
        200 => Ok((answer.body, value)),
        // The question is wrong in a way that only the node could see.
        400 => wrong_usage("explain", why),
        status => Err(format!("{}: the node answers with {status}: {why}", socket.display())),
    }
}

fn explain(asked: &Explain) -> Result<String, String> {
    let tuple = Tuple::parse(&asked.protocol, &asked.source, &asked.destination);
    let tuple = tuple.unwrap_or_else(|error| wrong_usage("explain", &error.to_string()));
    let (body, value) = match &asked.config {
        Some(file) => {
            // The files may well be those of another machine, with other cores.
            let read = |path: &Path| std::fs::read_to_string(path);
            let config = config::load_from(&read, file, None).map_err(|errors| errors.to_string())?;
            let request = Request { tuple, receiver: asked.receiver.clone() };
            match explain::offline(&config, &request) {
                Ok(said) => {
                    let value = serde_json::to_value(said).map_err(|error| error.to_string())?;
                    (value.to_string(), value)
                }
                Err(error) if error.is_wrong_question() => wrong_usage("explain", &error.to_string()),
                Err(error) => return Err(format!("{}: {error}", file.display())),
            }
        }
        None => {
            let socket = Which { socket: asked.socket.clone(), config: None }.socket()?;
            let words = [
                ("protocol", &asked.protocol),
                ("source", &asked.source),
                ("destination", &asked.destination),
            ];
            let receiver = asked.receiver.iter().map(|name| ("receiver", name));
            let query = words.into_iter().chain(receiver);
            let query: Vec<_> = query.map(|(key, word)| format!("{key}={}", client::escaped(word))).collect();
            ask(&socket, &format!("/v1/explain?{}", query.join("&")))?
        }
    };
    Ok(if asked.json { body + "\n" } else { run::explain::lines(&value) })
}

fn probe_type(word: &str) -> Result<Probe, String> {
    const TYPES: [Probe; 5] = [Probe::Tcp, Probe::Http, Probe::Https, Probe::Udp, Probe::Icmp];
    let found = TYPES.into_iter().find(|probe| probe.word() == word);
    found.ok_or_else(|| format!("there are {}", words(TYPES.iter().map(|probe| probe.word()))))
}

fn duration(word: &str) -> Result<Duration, String> {
    parse_duration(word).map_err(|reason| reason.to_string())
}

fn probe(asked: ProbeOnce) -> Result<String, String> {
    let spec = HealthSpec {
        interval: asked.timeout.max(DEFAULT_INTERVAL),
        timeout: asked.timeout,
        path: asked.path,
        host: asked.host,
        verify: asked.verify,
        expect_status: asked.expect_status,
        expect_body: asked.expect_body,
        send: asked.send,
        expect: asked.expect,
        ..HealthSpec::new(asked.probe)
    };
    if let Some((field, why)) = spec.faults().first() {
        wrong_usage("probe", &format!("--{}: {why}", field.replace('_', "-")));
    }
    let icmp = spec.probe == Probe::Icmp;
    let to = match (asked.target.parse::<IpAddr>(), asked.target.parse::<SocketAddr>()) {
        (Ok(address), _) if icmp => SocketAddr::new(address, 0),
        (_, Ok(to)) if !icmp && to.port() > 0 => to,
        _ => {
            let needed =
                if icmp { "an address" } else { "an address and a port, such as 10.0.0.1:80 or [::1]:80" };
            wrong_usage("probe", &format!("--target: {:?} is not {needed}", asked.target))
        }
    };
    let outcome =
        run::health::once(to, &spec).map_err(|error| format!("no probe can be made here: {error}"))?;
    let what = format!("{} {}", spec.probe.word(), asked.target);
    match outcome {
        Outcome::Good(took) => Ok(format!("{what}: good in {:.3} ms\n", took.as_secs_f64() * 1e3)),
        Outcome::Bad(why) => Err(format!("{what}: bad: {why}")),
        Outcome::Unable(why) => Err(format!("{what}: no probe can be made here: {why}")),
    }
}

/// Ends the program as clap does when arguments of `verb` are wrong: message, usage, exit code 2.
fn wrong_usage(verb: &str, why: &str) -> ! {
    let mut command = Command::command();
    command.build();
    let verb = command.get_subcommands_mut().find(|known| known.get_name() == verb);
    match verb {
        Some(verb) => verb.error(ErrorKind::ValueValidation, why).exit(),
        None => Command::command().error(ErrorKind::ValueValidation, why).exit(),
    }
}

/// The process's terminal.
struct Screen;

impl Terminal for Screen {
    fn say(&mut self, text: &str) {
        // A reader that has seen enough (`| head`) is no failure.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }

    fn agreed(&mut self, question: &str) -> Option<bool> {
        if !std::io::stdin().is_terminal() {
            return None;
        }
        self.say(&format!("{question} [y/N] "));
        let _ = std::io::stdout().flush();
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).ok()?;
        Some(matches!(line.trim(), "y" | "Y" | "yes"))
    }
}

/// Prints the result of a command; an error to standard error.
fn end(result: Result<String, String>) -> ExitCode {
    match result {
        Ok(text) => {
            Screen.say(&text);
            ExitCode::SUCCESS
        }
        Err(text) => {
            say(&text);
            ExitCode::FAILURE
        }
    }
}

fn say(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}
