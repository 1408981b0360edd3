//! A Redis Cluster of real servers.

use redis::Value;

use super::{Exporter, Flavor, Proxy, Server, free_port, until};

/// Three masters, all slots shared out.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Cluster {
    pub fn start() -> Self {
        Self::with(Flavor::Redis7, &[])
    }

    /// With further options of redis-server.
    pub fn with(flavor: Flavor, args: &[&str]) -> Self {
        let nodes: Vec<_> = [(); 3].map(|()| node(flavor, args)).into();
        for (node, slots) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
            node.run(&format!("CLUSTER ADDSLOTSRANGE {slots}"));
            meet(&nodes[0], node);
        }
        let cluster = Self { nodes };
        until("the Cluster is whole", || {
            cluster.nodes.iter().all(|node| {
                let info: String = redis::cmd("CLUSTER").arg("INFO").query(&mut node.connection()).unwrap();
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            })
        });
        cluster
    }

    /// A replica of this node.
    pub fn replica_of(&self, master: usize) -> Server {
        self.nodes[master].run("CONFIG SET repl-diskless-sync-delay 0");
        let replica = node(Flavor::Redis7, &[]);
        self.nodes.iter().for_each(|node| meet(node, &replica));
        let id = self.id(master);
        let replicate = || redis::cmd("CLUSTER").arg(&["REPLICATE", &id]).exec(&mut replica.connection()).is_ok();
        until("the replica knows its master", replicate);
        let is_known = |node: &Server| format!("{:?}", node.run("CLUSTER NODES")).contains("slave");
        until("all nodes know the replica", || self.nodes.iter().all(is_known));
        replica
    }

    pub fn exporter(&self, args: &[&str]) -> Exporter {
        let url = format!("--redis.url={}", self.nodes[0].url());
        Exporter::start_bare(&[&[url.as_str(), "--redis.cluster", "--redis.timeout=3s"], args].concat())
    }

    /// The node that holds the stream of [`super::writers`].
    pub fn owner_of_writers(&self) -> &Server {
        &self.nodes[self.owner(super::writers::STREAM)]
    }

    /// From now on the nodes announce proxies that cut what passes into pieces.
    pub fn behind_proxies(&self) -> Vec<Proxy> {
        let proxy = |node: &Server| {
            let proxy = Proxy::cutting(node, 7);
            node.run(&format!("CONFIG SET cluster-announce-port {}", proxy.port()));
            proxy
        };
        let proxies: Vec<_> = self.nodes.iter().map(proxy).collect();
        until("all nodes know it", || {
            self.nodes.iter().all(|node| {
                let slots = format!("{:?}", node.run("CLUSTER SLOTS"));
                proxies.iter().all(|proxy| slots.contains(&format!("int({})", proxy.port())))
            })
        });
        proxies
    }

    pub fn slot(&self, key: &str) -> u16 {
        redis::cmd("CLUSTER").arg(&["KEYSLOT", key]).query(&mut self.nodes[0].connection()).unwrap()
    }

    pub fn owner(&self, key: &str) -> usize {
        [5461, 10923, 16384].iter().position(|end| self.slot(key) < *end).unwrap()
    }

    pub fn id(&self, node: usize) -> String {
        redis::cmd("CLUSTER").arg("MYID").query(&mut self.nodes[node].connection()).unwrap()
    }

    /// Hands a slot with one key over from one node to another, as redis-cli does it.
    pub fn move_slot(&self, key: &str, from: usize, to: usize) {
        self.begin_move(key, from, to);
        self.end_move(key, from, to);
    }

    /// The key is moved, and not yet its slot.
    pub fn begin_move(&self, key: &str, from: usize, to: usize) {
        let (slot, from_id, to_id) = (self.slot(key), self.id(from), self.id(to));
        self.nodes[to].run(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}"));
        self.nodes[from].run(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}"));
        self.nodes[from].run(&format!("MIGRATE 127.0.0.1 {} {key} 0 1000", self.nodes[to].port));
    }

    pub fn end_move(&self, key: &str, from: usize, to: usize) {
        let (slot, to_id) = (self.slot(key), self.id(to));
        for node in [to, from] {
            self.nodes[node].run(&format!("CLUSTER SETSLOT {slot} NODE {to_id}"));
        }
    }
}

fn node(flavor: Flavor, args: &[&str]) -> Server {
    let bus = free_port().to_string();
    let cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "1000"];
    Server::start_with(flavor, &[&cluster, args].concat())
}

/// Makes a node known to another one, which tells the others in time.
fn meet(known: &Server, node: &Server) {
    let bus: Value = redis::cmd("CONFIG").arg(&["GET", "cluster-port"]).query(&mut node.connection()).unwrap();
    let (_, bus): (String, String) = redis::from_redis_value(bus).unwrap();
    known.run(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port));
}
