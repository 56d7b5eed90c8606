//! A server that answers each PING, before which the proxy stands.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{Read as _, Write as _};
use std::sync::mpsc::{Receiver, channel};

use super::*;

#[test]
fn what_comes_is_handed_on_refused_or_left_alone() {
    let echo = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let proxy = Proxy::before(echo.local_addr().unwrap().port()).unwrap();
    std::thread::spawn(move || {
        for mut client in echo.incoming().map_while(Result::ok) {
            let mut word = [0; 2];
            while client.read_exact(&mut word).is_ok() && client.write_all(&word).is_ok() {}
        }
    });
    let connect = || TcpStream::connect(("127.0.0.1", proxy.port()));
    let mut word = [0; 2];
    let mut open = connect().unwrap();
    open.write_all(b"hi").unwrap();
    open.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"hi");
    proxy.set(Mode::Silent).unwrap();
    assert_eq!(open.read(&mut word).unwrap_or(0), 0, "what was open is closed");
    let mut silent = connect().unwrap();
    silent.write_all(b"hi").unwrap();
    proxy.set(Mode::Shut).unwrap();
    assert_eq!(silent.read(&mut word).unwrap_or(0), 0, "nobody had answered");
    proxy.set(Mode::Open).unwrap();
    let mut again = connect().unwrap();
    again.write_all(b"ho").unwrap();
    again.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ho");
}

/// A server that says what it was asked, and answers with `$N`, the question.
fn server() -> (Proxy, Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let proxy = Proxy::before(listener.local_addr().unwrap().port()).unwrap();
    let (asked, was_asked) = channel();
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let asked = asked.clone();
            std::thread::spawn(move || {
                let mut came = [0; 64];
                loop {
                    let count = client.read(&mut came).unwrap_or(0);
                    // What is cut within is told as what came of it.
                    let text = String::from_utf8_lossy(&came[..count]).into_owned();
                    let is_whole = text.ends_with("\r\n") && text.len() > 9;
                    if count == 0 || asked.send(text).is_err() {
                        return;
                    }
                    if is_whole {
                        client.write_all(b">1\r\n+unasked\r\n").unwrap();
                        client.write_all(&[b"$16\r\n", &came[..16], b"\r\n"].concat()).unwrap();
                    }
                }
            });
        }
    });
    (proxy, was_asked)
}

fn question(letter: char) -> String {
    format!("*1\r\n$6\r\nASK__{letter}\r\n")
}

/// Asks these in one write, and returns all that comes back until the connection ends or `bytes` have come.
fn ask(proxy: &Proxy, letters: &str, bytes: usize) -> String {
    let mut client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
    let mut came = vec![0; bytes];
    let mut count = 0;
    for letter in letters.chars() {
        client.write_all(question(letter).as_bytes()).unwrap();
        // One after the other, so that the server reads them one by one.
        let until = count + bytes / letters.len();
        while count < until {
            match client.read(&mut came[count..until]).unwrap_or(0) {
                0 => return String::from_utf8(came[..count].to_vec()).unwrap(),
                more => count += more,
            }
        }
    }
    String::from_utf8(came).unwrap()
}

/// An unasked push and the answer: 14 + 23 bytes.
const ANSWER: usize = 37;

#[test]
fn the_chosen_request_is_met_and_no_other() {
    let (proxy, asked) = server();
    let met = proxy.on(Fault::at(Cut::BeforeRequest, "ASK__b").after(1));
    assert_eq!(ask(&proxy, "ab", 2 * ANSWER).len(), 2 * ANSWER, "the first of its kind passes");
    assert!(!met.has_happened());
    assert_eq!(ask(&proxy, "ab", 2 * ANSWER).len(), ANSWER, "the second does not");
    assert!(met.has_happened());
    assert_eq!(ask(&proxy, "b", ANSWER).len(), ANSWER, "the fault happens once");
    drop(proxy);
    let asked: Vec<String> = asked.try_iter().collect();
    assert_eq!(asked, ['a', 'b', 'a', 'b'].map(question));
}

#[test]
fn each_cut_leaves_what_it_says() {
    let push = ">1\r\n+unasked\r\n";
    let (whole, half) = (question('a'), question('a')[..8].to_owned());
    for (cut, reached, answered) in [
        (Cut::BeforeRequest, None, ""),
        (Cut::WithinRequest, Some(half), ""),
        (Cut::BeforeAnswer, Some(whole.clone()), push),
        (Cut::WithinAnswer, Some(whole), ">1\r\n+unasked\r\n$16\r\n*1\r\n$6"),
    ] {
        let (proxy, asked) = server();
        let met = proxy.on(Fault::at_any(cut));
        assert_eq!(ask(&proxy, "a", ANSWER), answered, "{cut:?}");
        assert!(met.has_happened(), "{cut:?}");
        assert_eq!(reached.is_some(), asked.recv_timeout(std::time::Duration::from_millis(200)).is_ok());
    }
}

#[test]
fn a_late_request_reaches_the_server_when_its_client_is_gone() {
    let (proxy, asked) = server();
    let met = proxy.on(Fault::at_any(Cut::Late));
    assert_eq!(ask(&proxy, "a", ANSWER), "");
    assert_eq!(ask(&proxy, "b", ANSWER).len(), ANSWER);
    let answer = met.deliver().unwrap();
    assert_eq!(String::from_utf8(answer).unwrap(), format!("$16\r\n{}\r\n", &question('a')[..16]));
    assert_eq!(asked.try_iter().collect::<Vec<_>>(), ['b', 'a'].map(question));
}

#[test]
fn a_held_request_or_answer_waits() {
    for cut in [Cut::HoldRequest, Cut::HoldAnswer] {
        let (proxy, asked) = server();
        let met = proxy.on(Fault::at_any(cut));
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| ask(&proxy, "a", ANSWER));
            while !met.has_happened() {
                std::thread::yield_now();
            }
            assert_eq!(asked.try_iter().count(), usize::from(cut == Cut::HoldAnswer), "{cut:?}");
            assert!(!asking.is_finished());
            met.release();
            assert_eq!(asking.join().unwrap().len(), ANSWER);
        });
    }
}

#[test]
fn a_frozen_proxy_hands_on_what_came_when_it_thaws() {
    let (proxy, asked) = server();
    proxy.freeze();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(&proxy, "a", ANSWER));
        assert!(asked.recv_timeout(std::time::Duration::from_millis(50)).is_err(), "nothing is handed on");
        proxy.thaw();
        assert_eq!(asking.join().unwrap().len(), ANSWER);
    });
}
