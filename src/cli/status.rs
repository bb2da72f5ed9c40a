//! Queries running links.
#![allow(clippy::disallowed_methods, reason = "a command that watches sleeps between two looks")]

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::retry_on_intr;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use rustix::process::{PidfdFlags, pidfd_open};
use serde_json::Value;

use super::print;
use crate::control::api::{Answer, Method, State, Status, parse_answer, request};
use crate::control::server::SOCKET;
use crate::control::text;
use crate::host::directories::{self, RUNTIME};
use crate::host::trust::Trusted;
use crate::preflight;
use crate::report::exit::{FAILED, Fatal, PRIVILEGE};
use crate::report::stderr;
use crate::report::text::printable;
use crate::sys::clock::unix_time;
use crate::sys::ready;

/// How long a link may take to answer; a reload may wait for scripts ...
const PATIENCE: Duration = Duration::from_secs(30);
/// ... but its status comes at once, even if its engine hangs.
pub(super) const STATUS_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for a place in a listener's queue.
const AT_HAND: Duration = Duration::from_millis(1);
/// Most links queried at once, each by a thread.
const AT_ONCE: usize = 256;
/// Longest answer in bytes.
const MAX_ANSWER: u64 = 4 << 20;
/// How long `tund down` waits for the end.
const ENDING: Duration = Duration::from_secs(60);
/// Interval of `--watch` and `tund events`.
pub(super) const WATCH: Duration = Duration::from_secs(1);

/// A link's socket.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) name: String,
    path: PathBuf,
    /// It is in this process's network namespace.
    near: bool,
    /// Who may serve it, besides the trusted users.
    user: Option<u32>,
}

/// How to show a status.
#[derive(Debug, Clone, Copy, Default)]
pub struct Form {
    /// As a JSON array.
    pub json: bool,
    /// Repeat every second.
    pub watch: bool,
    /// With the top senders.
    pub macs: bool,
}

/// Shows one link in full, or all in a table. The exit code is 0 if every link shown is up.
pub fn status(link: Option<&str>, form: Form) -> Result<ExitCode, Fatal> {
    loop {
        let Answers { links, failures } = statuses(link)?;
        let shown = if form.json {
            serde_json::to_string(&links).map_err(|error| Fatal::new(FAILED, error))? + "\n"
        } else if links.is_empty() && failures.is_empty() {
            "no link is running\n".to_owned()
        } else if link.is_some() {
            let macs = |status| if form.macs { text::talkers(status) } else { String::new() };
            links.iter().map(|status| text::full(status, unix_time()) + &macs(status)).collect()
        } else {
            text::table(&links, unix_time())
        };
        let clear = form.watch && !form.json && io::stdout().is_terminal();
        print(format!("{}{shown}", if clear { "\x1b[H\x1b[2J" } else { "" }))?;
        failures.iter().for_each(|fatal| stderr::show(&format!("tund: {fatal}\n")));
        if !form.watch {
            let up = failures.is_empty()
                && !links.is_empty()
                && links.iter().all(|status| status.state == State::Up);
            return Ok(if up { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        std::thread::sleep(WATCH);
    }
}

/// Prints the links' OpenMetrics text.
pub fn stats(link: Option<&str>) -> Result<(), Fatal> {
    let Answers { links, failures } = statuses(link)?;
    print(crate::control::metrics::openmetrics(&links))?;
    let silent = failures.iter().map(|fatal| format!("\n  {fatal}")).collect::<String>();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Fatal::new(FAILED, format!("some links could not be asked:{silent}")))
    }
}

/// Sends a command to one link, and prints its answer.
pub fn command(link: &str, method: Method) -> Result<(), Fatal> {
    let sockets = find(Some(link))?;
    let near = sockets.iter().filter(|socket| socket.near).count();
    let socket = match sockets.as_slice() {
        [socket] => socket,
        several => several.iter().find(|socket| socket.near && near == 1).ok_or_else(|| {
            Fatal::new(
                FAILED,
                format!("several links are called {link}: run tund in the network namespace of one"),
            )
        })?,
    };
    // Opened first, since the pid of an ended process can be reused.
    let process = if method == Method::Down { process_of(&socket.path) } else { None };
    let answer = ask(socket, method, PATIENCE).map_err(|error| failed(socket, &error))?;
    if let (Answer::Done(_), Some(process)) = (&answer, process) {
        wait_for_end(&process);
    }
    match answer {
        Answer::Refused(reason) => Err(Fatal::new(FAILED, format!("{}: {reason}", socket.name))),
        Answer::Done(parameters) => {
            let changes = parameters.get("changes").and_then(Value::as_array);
            let lines = changes.into_iter().flatten().filter_map(Value::as_str);
            print(lines.map(|line| format!("{line}\n")).collect::<String>())
        }
    }
}

/// The links that answered, and why others did not.
#[derive(Default)]
struct Answers {
    links: Vec<Status>,
    failures: Vec<Fatal>,
}

/// Queries all links, or those of that name. If none answers, returns the first failure.
fn statuses(link: Option<&str>) -> Result<Answers, Fatal> {
    let mut answers = Answers::default();
    for answer in ask_all(&find(link)?, STATUS_PATIENCE) {
        match answer {
            Ok(status) => answers.links.push(status),
            // It has ended since, or was killed.
            Err((_, error)) if link.is_none() && is_gone(&error) => {}
            Err((socket, error)) => answers.failures.push(failed(socket, &error)),
        }
    }
    if answers.links.is_empty() && !answers.failures.is_empty() {
        return Err(answers.failures.swap_remove(0));
    }
    Ok(answers)
}

/// Queries all links at once, so that a stuck one does not delay others; returns answers in order.
pub(super) fn ask_all(sockets: &[Socket], patience: Duration) -> Vec<Result<Status, (&Socket, io::Error)>> {
    let status = |socket| match ask(socket, Method::Status, patience)? {
        Answer::Done(mut parameters) => {
            let status = parameters.get_mut("status").map(Value::take).unwrap_or_default();
            Ok(serde_json::from_value(status)?)
        }
        Answer::Refused(reason) => Err(io::Error::other(reason)),
    };
    let crashed = |_| Err(io::Error::other("this is a bug: asking it failed"));
    let mut answers = Vec::new();
    for some in sockets.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            let asked: Vec<_> =
                some.iter().map(|socket| (socket, scope.spawn(move || status(socket)))).collect();
            answers.extend(asked.into_iter().map(|(socket, thread)| {
                thread.join().unwrap_or_else(crashed).map_err(|error: io::Error| (socket, error))
            }));
        });
    }
    answers
}

/// The status of this configuration file's link, if it runs.
pub fn running(file: &Path) -> Option<Status> {
    statuses(file.to_str()).ok()?.links.into_iter().next()
}

/// The process that runs the link of that socket.
fn process_of(path: &Path) -> Option<OwnedFd> {
    let stream = connected(path, PATIENCE).ok()?;
    let pid = socket_peercred(&stream).ok()?.pid;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

/// Waits for the end, so that an immediate restart does not find the old link. Scripts may take long.
fn wait_for_end(process: &OwnedFd) {
    // If this fails, it is merely not certain that it has ended.
    let _ = ready(process, PollFlags::IN, ENDING);
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::NotFound
            | ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
    )
}

pub(super) fn failed(socket: &Socket, error: &io::Error) -> Fatal {
    let name = &socket.name;
    if is_gone(error) {
        return Fatal::new(FAILED, format!("{name} is not running"));
    }
    let at = socket.path.display();
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            let remedy = "if its process is stopped, kill -CONT it, else end it and start the link again";
            Fatal::new(FAILED, format!("{name} does not answer at {at}: {remedy}"))
        }
        ErrorKind::PermissionDenied => {
            let remedy = "ask as root, or as the user who runs it";
            Fatal::new(PRIVILEGE, format!("cannot ask {name} at {at}: {error}: {remedy}"))
        }
        _ => Fatal::new(FAILED, format!("cannot ask {name} at {at}: {error}")),
    }
}

/// The sockets of the links of that name (at least one), or of all.
fn find(link: Option<&str>) -> Result<Vec<Socket>, Fatal> {
    let sockets = running_now(link)?;
    if let (true, Some(link)) = (sockets.is_empty(), link) {
        let remedy = "`tund status` shows those that do; one that has ended says why in its log, and `tund doctor FILE` \
                      looks for the cause";
        return Err(Fatal::new(FAILED, format!("no link {link} runs, or it is another user's: {remedy}")));
    }
    Ok(sockets)
}

/// The sockets of the links of that name, or of all. A name ending in `.toml` is a configuration file, which may set another runtime directory or
/// socket.
pub(super) fn running_now(link: Option<&str>) -> Result<Vec<Socket>, Fatal> {
    let file = link.filter(|link| link.ends_with(".toml"));
    let config = file.and_then(|file| {
        let parsed = preflight::load(Path::new(file), None, None, None).parsed;
        parsed.config.or(parsed.draft)
    });
    let name = config.as_ref().map(|config| config.name.as_str()).or(link);
    let configured = config.as_ref().and_then(|config| config.run.runtime_dir.as_deref());
    let mut sockets = Vec::new();
    for link in directories::existing(RUNTIME, configured)? {
        let path = link.path.join(SOCKET);
        if name.is_none_or(|name| name == link.name) && path.exists() {
            let name = printable(&link.name, usize::MAX);
            sockets.push(Socket { name, path, near: link.near, user: link.user });
        }
    }
    let elsewhere = config.as_ref().and_then(|config| Some((&config.name, config.status.socket.clone()?)));
    let elsewhere = elsewhere.filter(|(_, path)| path.exists());
    if link.is_some() && (sockets.len() > 1 || elsewhere.is_some()) {
        sockets.retain(is_served);
    }
    if let (true, Some((name, path))) = (sockets.is_empty(), elsewhere) {
        sockets.push(Socket { name: name.clone(), path, near: true, user: None });
    }
    sockets.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(sockets)
}

/// Whether a process serves this socket: a killed one leaves its file. A full queue counts as served.
fn is_served(socket: &Socket) -> bool {
    !connected(&socket.path, AT_HAND).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Connects to a link; each operation takes at most `patience`.
fn connected(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let stream =
        UnixStream::from(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?);
    stream.set_read_timeout(Some(patience))?;
    // This also bounds the wait for a place in the listener's queue (unix(7)).
    stream.set_write_timeout(Some(patience))?;
    // A connect with a timeout is not restarted after the command was suspended (signal(7)).
    let address = SocketAddrUnix::new(path)?;
    retry_on_intr(|| connect(&stream, &address))?;
    Ok(stream)
}

/// Queries a link, if served by root, this user, or the units' user set by root.
fn ask(socket: &Socket, method: Method, patience: Duration) -> io::Result<Answer> {
    let mut stream = connected(&socket.path, patience)?;
    let uid = socket_peercred(&stream)?.uid.as_raw();
    if !Trusted::here().has_user(uid) && socket.user != Some(uid) {
        return Err(io::Error::other(format!(
            "another user (uid {uid}) serves it: ask as that user, or remove it"
        )));
    }
    match stream.write_all(&request(method)) {
        // A refused client gets the reason before it asks.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut answer = Vec::new();
    let mut bytes = [0; 16 * 1024];
    loop {
        let count = retry_on_intr(|| rustix::io::read(&stream, &mut bytes))?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(bytes.get(..count).unwrap_or_default());
        if answer.pop_if(|last| *last == 0).is_some() {
            return Ok(clean(parse_answer(&answer)?));
        }
        if answer.len() as u64 > MAX_ANSWER {
            return Err(io::Error::new(ErrorKind::InvalidData, "the answer does not end"));
        }
    }
}

/// Removes from an answer what a terminal obeys.
fn clean(answer: Answer) -> Answer {
    match answer {
        Answer::Refused(reason) => Answer::Refused(printable(&reason, usize::MAX)),
        Answer::Done(mut parameters) => {
            clean_value(&mut parameters);
            Answer::Done(parameters)
        }
    }
}

fn clean_value(value: &mut Value) {
    match value {
        Value::String(text) => *text = printable(text, usize::MAX),
        Value::Array(values) => values.iter_mut().for_each(clean_value),
        Value::Object(fields) => fields.values_mut().for_each(clean_value),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::control::api;
    use crate::testing::{Scratch, wait_until};
    use serde_json::json;
    use std::os::unix::net::UnixListener;
    use std::sync::Barrier;

    /// Serves one request with this answer.
    fn served(scratch: &Scratch, answer: Vec<u8>) -> (Socket, std::thread::JoinHandle<()>) {
        let path = scratch.path().join(SOCKET);
        let listener = UnixListener::bind(&path).unwrap();
        let serve = move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 999];
            assert!(stream.read(&mut request).unwrap() > 0);
            let _ = stream.write_all(&answer);
        };
        (Socket { name: "fri".to_owned(), path, near: true, user: None }, std::thread::spawn(serve))
    }

    /// Each answering link waits until all were queried; one never answers, and the queue of one is full.
    #[test]
    fn links_are_asked_at_once_and_a_stuck_one_costs_its_own_line() {
        const ANSWERING: usize = 20;
        let scratches: Vec<_> = (0..ANSWERING + 2).map(|_| Scratch::new()).collect();
        let all_asked = Barrier::new(ANSWERING);
        let bind = |scratch: &Scratch| UnixListener::bind(scratch.path().join(SOCKET)).unwrap();
        let sockets: Vec<_> = scratches
            .iter()
            .enumerate()
            .map(|(n, scratch)| Socket {
                name: format!("link{n}"),
                path: scratch.path().join(SOCKET),
                near: true,
                user: None,
            })
            .collect();
        let listeners: Vec<_> = scratches.iter().map(bind).collect();
        let [stuck, full] = [&listeners[ANSWERING], &listeners[ANSWERING + 1]];
        rustix::net::listen(full, 0).unwrap();
        let _first = UnixStream::connect(&sockets[ANSWERING + 1].path).unwrap();
        std::thread::scope(|scope| {
            for listener in &listeners[..ANSWERING] {
                scope.spawn(|| {
                    let (mut stream, _) = listener.accept().unwrap();
                    assert!(stream.read(&mut [0; 999]).unwrap() > 0);
                    all_asked.wait();
                    stream.write_all(&api::reply(&json!({ "status": api::tests::status() }))).unwrap();
                });
            }
            let answers = ask_all(&sockets, Duration::from_secs(2));
            assert!(answers[..ANSWERING].iter().all(Result::is_ok), "{answers:?}");
            for answer in &answers[ANSWERING..] {
                let (socket, error) = answer.as_ref().unwrap_err();
                assert!(failed(socket, error).message.contains(" does not answer at /"), "{error}");
            }
        });
        stuck.set_nonblocking(true).unwrap();
        assert!(stuck.accept().is_ok(), "it was asked");
    }

    #[test]
    fn a_link_whose_queue_is_full_is_served_and_one_that_was_killed_is_not() {
        let scratch = Scratch::new();
        let path = scratch.path().join(SOCKET);
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = UnixStream::connect(&path).unwrap();
        let (sender, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let socket = Socket { name: "fri".to_owned(), path, near: true, user: None };
            sender.send(is_served(&socket)).unwrap();
            drop(listener);
            wait_until(|| !is_served(&socket));
            sender.send(false).unwrap();
        });
        for served in [true, false] {
            assert_eq!(told.recv_timeout(STATUS_PATIENCE), Ok(served));
        }
    }

    #[test]
    fn what_a_link_says_is_shown_without_what_a_terminal_obeys() {
        let scratch = Scratch::new();
        let said = json!({ "changes": ["a\x1b[2Jb", { "x": "\u{202e}\u{9b}" }], "pid": 7 });
        let (socket, server) = served(&scratch, api::reply(&said));
        let Answer::Done(shown) = ask(&socket, Method::Reload, PATIENCE).unwrap() else { panic!("refused") };
        assert_eq!(shown, json!({ "changes": ["a_[2Jb", { "x": "__" }], "pid": 7 }));
        server.join().unwrap();
        std::fs::remove_file(&socket.path).unwrap();
        let (socket, server) = served(&scratch, api::refusal("no\x07"));
        assert!(
            matches!(ask(&socket, Method::Reload, PATIENCE).unwrap(), Answer::Refused(reason) if reason == "no_")
        );
        server.join().unwrap();
    }
}
