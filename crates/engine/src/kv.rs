//! Blocks of the KV cache: who holds which, and which hold a prefix that a later prompt may use.
//!
//! A block is free (holds nothing), held (by one or more sequences) or cached (by none, but found by its key). When a
//! free one is needed, the client with the most cached blocks gives up the one that it used longest ago: so a flood
//! of one client's prompts drives out that client's own, never those of a client that caches less. Only full blocks
//! have keys, and a block with a key is never written again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use atelier_model::{Digest, KV_BLOCK_TOKENS};

use crate::job::AdapterSet;

/// Commits to base, adapter set, salt and every token up to the end of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockKey([u8; 32]);

impl BlockKey {
    /// The key of the empty prefix.
    pub(crate) fn root(base: Digest, adapters: &AdapterSet, salt: &[u8; 32]) -> BlockKey {
        let mut hasher = blake3::Hasher::new();
        field(&mut hasher, "atelier kv prefix", &base.0);
        field(&mut hasher, "adapter count", &(adapters.digests().len() as u64).to_le_bytes());
        for digest in adapters.digests() {
            field(&mut hasher, "adapter", &digest.0);
        }
        field(&mut hasher, "salt", salt);
        BlockKey(*hasher.finalize().as_bytes())
    }

    /// The key of this prefix followed by one more block of tokens.
    pub(crate) fn then(self, tokens: &[u32]) -> BlockKey {
        debug_assert_eq!(tokens.len(), KV_BLOCK_TOKENS);
        let mut bytes = [0u8; KV_BLOCK_TOKENS * 4];
        for (place, token) in bytes.chunks_exact_mut(4).zip(tokens) {
            place.copy_from_slice(&token.to_le_bytes());
        }
        let mut hasher = blake3::Hasher::new();
        field(&mut hasher, "prefix", &self.0);
        field(&mut hasher, "tokens", &bytes);
        BlockKey(*hasher.finalize().as_bytes())
    }
}

/// Feeds a tagged, length-prefixed field, so that no two lists of fields give the same bytes.
fn field(hasher: &mut blake3::Hasher, tag: &str, value: &[u8]) {
    for part in [tag.as_bytes(), value] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
}

#[derive(Clone, Debug, Default)]
struct Block {
    /// Sequences that hold the block.
    holders: u32,
    /// Its key, if it holds a full, computed block that may be shared.
    key: Option<BlockKey>,
    /// Who computed it, for a block with a key: a key's salt is one client's.
    client: u64,
    /// When it was last let go; its place in its client's order of eviction while cached.
    released: u64,
}

/// Blocks at the head of a prompt that are already computed.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// The matched blocks, not yet held: see [`BlockPool::reserve`].
    blocks: Vec<u32>,
    /// The key of the last matched block, or of the empty prefix.
    pub key: BlockKey,
}

impl Prefix {
    /// Nothing found.
    pub(crate) fn none(root: BlockKey) -> Prefix {
        Prefix { blocks: Vec::new(), key: root }
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks.len()
    }
}

/// Hands out the blocks of one KV cache.
#[derive(Debug)]
pub(crate) struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<u32>,
    index: HashMap<BlockKey, u32>,
    /// Cached blocks by client, then by time of release; no client is without one.
    cached: HashMap<u64, BTreeMap<u64, u32>>,
    cached_count: usize,
    clock: u64,
}

impl BlockPool {
    pub(crate) fn new(count: usize) -> BlockPool {
        let count = u32::try_from(count).expect("a KV cache has fewer than 2^32 blocks");
        BlockPool {
            blocks: vec![Block::default(); count as usize],
            free: (0..count).rev().collect(),
            index: HashMap::new(),
            cached: HashMap::new(),
            cached_count: 0,
            clock: 0,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn free(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn cached(&self) -> usize {
        self.cached_count
    }

    /// Longest run of blocks at the head of `tokens` that are in the cache under `root`.
    pub(crate) fn find_prefix(&self, root: BlockKey, tokens: &[u32]) -> Prefix {
        let mut prefix = Prefix::none(root);
        for block_tokens in tokens.chunks_exact(KV_BLOCK_TOKENS) {
            let key = prefix.key.then(block_tokens);
            let Some(block) = self.index.get(&key) else { break };
            prefix.blocks.push(*block);
            prefix.key = key;
        }
        prefix
    }

    /// True if `count` blocks beginning with `prefix` can be held now.
    pub(crate) fn can_reserve(&self, prefix: &Prefix, count: usize) -> bool {
        let needed = count.saturating_sub(prefix.blocks.len());
        // A matched block that is only cached cannot also be given up for room.
        let matched_cached = prefix.blocks.iter().filter(|block| self.blocks[**block as usize].holders == 0).count();
        needed <= self.free.len() + self.cached_count - matched_cached
    }

    /// Holds `count` blocks beginning with those of `prefix`; gives the block table. The caller has asked
    /// [`BlockPool::can_reserve`].
    pub(crate) fn reserve(&mut self, prefix: &Prefix, count: usize) -> Vec<u32> {
        assert!(self.can_reserve(prefix, count), "reserve is only called where can_reserve holds");
        let mut table = Vec::with_capacity(count);
        for &block in &prefix.blocks {
            self.hold(block);
            table.push(block);
        }
        while table.len() < count {
            let block = self.free.pop().unwrap_or_else(|| self.evict());
            self.hold(block);
            table.push(block);
        }
        table
    }

    /// The block with this key, if there is one.
    pub(crate) fn find(&self, key: BlockKey) -> Option<u32> {
        self.index.get(&key).copied()
    }

    /// Lets go of `own`, which holds nothing yet, for `found`, which holds what it was meant for.
    pub(crate) fn exchange(&mut self, own: u32, found: u32) {
        self.hold(found);
        self.release(&[own]);
    }

    fn hold(&mut self, block: u32) {
        let Block { holders, key, client, released } = self.blocks[block as usize];
        if holders == 0 && key.is_some() {
            self.uncache(client, released);
        }
        self.blocks[block as usize].holders += 1;
    }

    /// Gives up a cached block: of the client with the most, the one that was let go longest ago.
    fn evict(&mut self) -> u32 {
        let order = |blocks: &BTreeMap<u64, u32>| (blocks.len(), Reverse(blocks.keys().next().copied()));
        let most = self.cached.iter().max_by_key(|(_, blocks)| order(blocks));
        let (&client, blocks) = most.expect("can_reserve counted the cached blocks");
        let (&released, &block) = blocks.first_key_value().expect("no client is without a cached block");
        self.uncache(client, released);
        let key = self.blocks[block as usize].key.take().expect("a cached block has a key");
        self.index.remove(&key);
        block
    }

    fn uncache(&mut self, client: u64, released: u64) {
        let Some(blocks) = self.cached.get_mut(&client) else { return };
        self.cached_count -= usize::from(blocks.remove(&released).is_some());
        if blocks.is_empty() {
            self.cached.remove(&client);
        }
    }

    /// Makes a client's held, full, computed block findable. If another block already has the key, that one stays
    /// the one.
    pub(crate) fn publish(&mut self, block: u32, key: BlockKey, client: u64) {
        let state = &mut self.blocks[block as usize];
        debug_assert!(state.holders > 0, "only a held block is published");
        if state.key.is_none() && !self.index.contains_key(&key) {
            state.key = Some(key);
            state.client = client;
            self.index.insert(key, block);
        }
    }

    /// Lets go of a sequence's blocks. The tail goes first, so that the head of a prefix, without which the tail
    /// cannot be found, outlives it.
    pub(crate) fn release(&mut self, table: &[u32]) {
        for &block in table.iter().rev() {
            let state = &mut self.blocks[block as usize];
            assert!(state.holders > 0, "block {block} is let go more often than it was held");
            state.holders -= 1;
            if state.holders > 0 {
                continue;
            }
            if state.key.is_some() {
                self.clock += 1;
                state.released = self.clock;
                self.cached.entry(state.client).or_default().insert(self.clock, block);
                self.cached_count += 1;
            } else {
                self.free.push(block);
            }
        }
    }

    /// Checks every count against the block tables of all live sequences. For tests and after an incident.
    pub(crate) fn audit<'a>(&self, tables: impl Iterator<Item = &'a [u32]>) -> Result<(), String> {
        let mut holders = vec![0u32; self.blocks.len()];
        for block in tables.flatten() {
            holders[*block as usize] += 1;
        }
        let mut unheld = 0;
        for (index, block) in self.blocks.iter().enumerate() {
            if block.holders != holders[index] {
                return Err(format!("block {index}: {} holders counted, {} found", block.holders, holders[index]));
            }
            let found = block.key.is_none_or(|key| self.index.get(&key) == Some(&(index as u32)));
            if !found {
                return Err(format!("block {index}: its key does not lead to it"));
            }
            unheld += usize::from(block.holders == 0);
        }
        let cached: usize = self.cached.values().map(BTreeMap::len).sum();
        if cached != self.cached_count || self.cached.values().any(BTreeMap::is_empty) {
            return Err(format!("{cached} cached by client, {} counted", self.cached_count));
        }
        if self.free.len() + cached != unheld {
            return Err(format!("{} free and {cached} cached of {unheld} unheld", self.free.len()));
        }
        let keyed = self.blocks.iter().filter(|block| block.key.is_some()).count();
        if self.index.len() != keyed {
            return Err(format!("{} keys in the index, {keyed} on blocks", self.index.len()));
        }
        if let Some(block) = self.free.iter().find(|block| self.blocks[**block as usize].key.is_some()) {
            return Err(format!("free block {block} has a key"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    fn tokens(count: usize, first: u32) -> Vec<u32> {
        (first..).take(count).collect()
    }

    fn publish_all(pool: &mut BlockPool, root: BlockKey, tokens: &[u32], table: &[u32], client: u64) {
        let mut key = root;
        for (block_tokens, block) in tokens.chunks_exact(KV_BLOCK_TOKENS).zip(table) {
            key = key.then(block_tokens);
            pool.publish(*block, key, client);
        }
    }

    /// Computes a prompt for a client and lets it go.
    fn visit(pool: &mut BlockPool, root: BlockKey, tokens: &[u32], client: u64) {
        let prefix = pool.find_prefix(root, tokens);
        let table = pool.reserve(&prefix, tokens.len() / KV_BLOCK_TOKENS);
        publish_all(pool, root, tokens, &table, client);
        pool.release(&table);
    }

    #[test]
    fn case_23_a_flood_drives_out_the_flooders_own_blocks_only() {
        let root = |client: u8| BlockKey::root(digest(1), &AdapterSet::none(), &[client; 32]);
        let mut pool = BlockPool::new(32);
        let quiet = tokens(8 * KV_BLOCK_TOKENS, 0);
        visit(&mut pool, root(1), &quiet, 1);
        for round in 0..50 {
            visit(&mut pool, root(2), &tokens(8 * KV_BLOCK_TOKENS, 1_000 * round), 2);
            pool.audit(std::iter::empty()).expect("balanced");
        }
        assert_eq!(pool.find_prefix(root(1), &quiet).blocks(), 8, "all of the quiet client's");
        // Two that flood share what there is, whoever came first.
        for round in 0..50 {
            visit(&mut pool, root(3), &tokens(8 * KV_BLOCK_TOKENS, 1_000 * round), 3);
        }
        assert_eq!(pool.find_prefix(root(1), &quiet).blocks(), 8);
        let left = pool.cached[&2].len();
        assert!((8..=16).contains(&left), "{left} blocks are left to the second");
        assert_eq!(pool.cached(), 32);
    }

    #[test]
    fn the_key_commits_to_every_field() {
        let set = |bytes: &[u8]| AdapterSet::of(&bytes.iter().map(|byte| digest(*byte)).collect::<Vec<_>>());
        let roots = [
            BlockKey::root(digest(1), &set(&[]), &[0; 32]),
            BlockKey::root(digest(2), &set(&[]), &[0; 32]),
            BlockKey::root(digest(1), &set(&[]), &[1; 32]),
            BlockKey::root(digest(1), &set(&[3]), &[0; 32]),
            BlockKey::root(digest(1), &set(&[4]), &[0; 32]),
            BlockKey::root(digest(1), &set(&[3, 4]), &[0; 32]),
            BlockKey::root(digest(1), &set(&[4, 3]), &[0; 32]),
        ];
        let block = tokens(KV_BLOCK_TOKENS, 0);
        let keys = roots.iter().flat_map(|root| [*root, root.then(&block), root.then(&block).then(&block)]);
        let distinct: std::collections::HashSet<BlockKey> = keys.collect();
        assert_eq!(distinct.len(), roots.len() * 3);
    }

    #[test]
    fn a_prefix_is_found_again_and_given_up_tail_first() {
        let root = BlockKey::root(digest(1), &AdapterSet::none(), &[0; 32]);
        let prompt = tokens(3 * KV_BLOCK_TOKENS + 5, 0);
        let mut pool = BlockPool::new(4);
        let table = pool.reserve(&Prefix::none(root), 4);
        publish_all(&mut pool, root, &prompt, &table, 0);
        pool.release(&table);
        assert_eq!((pool.free(), pool.cached()), (1, 3));

        let found = pool.find_prefix(root, &prompt);
        assert_eq!(found.blocks, table[..3]);
        assert!(!pool.can_reserve(&found, 5), "there are four blocks in all");

        let other = pool.reserve(&Prefix::none(root), 2);
        assert_eq!(pool.find_prefix(root, &prompt).blocks, table[..2], "the tail went, the head stayed");
        pool.release(&other);
        pool.audit(std::iter::empty()).expect("balanced");
    }

    proptest! {
        #[test]
        fn counts_balance_under_random_traffic(
            actions in proptest::collection::vec((0u8..4, 0u32..6, 1usize..6, any::<bool>()), 1..200),
        ) {
            let mut pool = BlockPool::new(12);
            let mut live: Vec<Vec<u32>> = Vec::new();
            for (salt, first, count, keep) in actions {
                let root = BlockKey::root(digest(0), &AdapterSet::none(), &[salt; 32]);
                let prompt = tokens(count * KV_BLOCK_TOKENS, first);
                let prefix = pool.find_prefix(root, &prompt);
                if pool.can_reserve(&prefix, count) {
                    let table = pool.reserve(&prefix, count);
                    publish_all(&mut pool, root, &prompt, &table, u64::from(salt));
                    live.push(table);
                }
                if !keep && !live.is_empty() {
                    let table = live.remove(first as usize % live.len());
                    pool.release(&table);
                }
                prop_assert_eq!(pool.audit(live.iter().map(Vec::as_slice)), Ok(()));
            }
            for table in &live {
                pool.release(table);
            }
            prop_assert_eq!(pool.free() + pool.cached(), pool.total());
        }
    }
}
