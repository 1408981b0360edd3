//! Turns for password checks.
//!
//! A check keeps a core busy for as long as bcrypt takes, so there is one at a time. Next is a client of the network
//! whose last turn is longest ago, and of one network the newest request: many guesses from one address then delay a
//! client at another one by a check or two. The queue is short. A request that would have to wait longest is refused at
//! once, so that its client does not wait in vain.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
};

use tokio::sync::oneshot;

use crate::web::lock;

/// The most requests that wait. Each holds a connection, so this stays well below their limit.
const WAITING_MAX: usize = 64;
/// How many turns are remembered.
const REMEMBERED_TURNS: u64 = 1024;

pub(super) struct PasswordQueue(Mutex<Queue>);

struct Queue {
    busy: bool,
    waiting: Vec<Waiting>,
    /// Counts requests and turns.
    clock: u64,
    /// When each network last had a turn.
    last_turns: BTreeMap<IpAddr, u64>,
}

struct Waiting {
    network: IpAddr,
    arrived: u64,
    turn: oneshot::Sender<Turn>,
}

/// The right to check one password.
pub(super) struct Turn(&'static PasswordQueue);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.next();
    }
}

impl PasswordQueue {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Queue { busy: false, waiting: Vec::new(), clock: 0, last_turns: BTreeMap::new() }))
    }

    /// Waits for a turn. `None` if too many others wait.
    pub(super) async fn turn(&'static self, client: IpAddr) -> Option<Turn> {
        let turn = {
            let mut queue = lock(&self.0);
            let network = network(client);
            if !queue.busy {
                queue.begin(network);
                return Some(Turn(self));
            }
            let (sender, turn) = oneshot::channel();
            queue.wait(network, sender);
            turn
        };
        turn.await.ok()
    }

    fn next(&'static self) {
        let next = {
            let mut queue = lock(&self.0);
            queue.busy = false;
            let Some(next) = queue.take_next() else { return };
            queue.begin(next.network);
            next
        };
        // Without the lock: if the client has left just now, this drops the turn, which calls this function again.
        let _ = next.turn.send(Turn(self));
    }
}

impl Queue {
    fn begin(&mut self, network: IpAddr) {
        self.busy = true;
        self.clock += 1;
        let now = self.clock;
        self.last_turns.insert(network, now);
        self.last_turns.retain(|_, turn| *turn + REMEMBERED_TURNS > now);
    }

    fn wait(&mut self, network: IpAddr, turn: oneshot::Sender<Turn>) {
        self.forget_clients_that_left();
        self.clock += 1;
        self.waiting.push(Waiting { network, arrived: self.clock, turn });
        if self.waiting.len() > WAITING_MAX {
            let last = (0..self.waiting.len()).max_by_key(|index| self.order(*index));
            last.map(|index| self.waiting.swap_remove(index));
        }
    }

    fn forget_clients_that_left(&mut self) {
        self.waiting.retain(|waiting| !waiting.turn.is_closed());
    }

    fn take_next(&mut self) -> Option<Waiting> {
        self.forget_clients_that_left();
        let first = (0..self.waiting.len()).min_by_key(|index| self.order(*index))?;
        Some(self.waiting.swap_remove(first))
    }

    /// The least is next.
    fn order(&self, index: usize) -> Option<(u64, Reverse<u64>)> {
        let waiting = self.waiting.get(index)?;
        let last_turn = self.last_turns.get(&waiting.network).copied().unwrap_or(0);
        Some((last_turn, Reverse(waiting.arrived)))
    }
}

/// What counts as one client: an IPv4 address, or the IPv6 network of 64 bits that one host usually has.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::Pin};

    use futures_util::FutureExt;

    use super::*;

    type Waiter = Pin<Box<dyn Future<Output = Option<Turn>>>>;

    fn queue() -> &'static PasswordQueue {
        Box::leak(Box::new(PasswordQueue::new()))
    }

    /// A request from this address, which waits from now on.
    fn request(queue: &'static PasswordQueue, client: &str) -> Waiter {
        let mut waiter: Waiter = Box::pin(queue.turn(client.parse().unwrap()));
        assert!(waiter.as_mut().now_or_never().is_none(), "the turn is taken");
        waiter
    }

    /// The index of the one request whose turn it is.
    fn whose_turn(waiting: &mut [Option<Waiter>]) -> Option<(usize, Turn)> {
        waiting.iter_mut().enumerate().find_map(|(index, waiter)| {
            let turn = waiter.as_mut()?.as_mut().now_or_never()??;
            *waiter = None;
            Some((index, turn))
        })
    }

    /// The order in which these requests get their turns, the first of them while another client has one.
    fn order(clients: &[&str]) -> Vec<usize> {
        let queue = queue();
        let mut turn = queue.turn("192.0.2.1".parse().unwrap()).now_or_never().flatten();
        let mut waiting: Vec<_> = clients.iter().map(|client| Some(request(queue, client))).collect();
        let mut order = Vec::new();
        loop {
            drop(turn);
            let Some((index, next)) = whose_turn(&mut waiting) else { return order };
            order.push(index);
            turn = Some(next);
        }
    }

    #[test]
    fn addresses_take_turns_and_the_newest_request_is_first() {
        assert_eq!(order(&["10.0.0.1", "10.0.0.1", "10.0.0.1"]), [2, 1, 0]);
        assert_eq!(order(&["10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.3"]), [3, 2, 1, 0]);
        assert_eq!(order(&["10.0.0.1", "192.0.2.1", "192.0.2.1"]), [0, 2, 1], "192.0.2.1 had the first turn");
        assert_eq!(order(&["2001:db8::1", "2001:db8::2", "10.0.0.1", "::ffff:10.0.0.1"]), [3, 1, 2, 0]);
    }

    #[test]
    fn of_three_hundred_guesses_most_are_refused_and_the_right_login_is_next() {
        let queue = queue();
        let turn = queue.turn("10.0.0.1".parse().unwrap()).now_or_never().flatten().unwrap();
        let mut guesses: Vec<_> = (0..300).map(|_| request(queue, "10.0.0.1")).collect();
        let refused = guesses.iter_mut().filter_map(|guess| guess.as_mut().now_or_never());
        assert_eq!(refused.map(|turn| assert!(turn.is_none())).count(), 300 - WAITING_MAX);
        let mut right = request(queue, "10.0.0.1");
        drop(turn);
        assert!(right.as_mut().now_or_never().flatten().is_some());
    }

    #[test]
    fn a_client_that_has_left_is_passed_over() {
        let queue = queue();
        let turn = queue.turn("10.0.0.1".parse().unwrap()).now_or_never().flatten();
        let stays = request(queue, "10.0.0.2");
        drop(request(queue, "10.0.0.3"));
        drop(turn);
        assert!(stays.now_or_never().flatten().is_some());
        assert!(queue.turn("10.0.0.1".parse().unwrap()).now_or_never().flatten().is_some(), "nobody has the turn");
    }
}
