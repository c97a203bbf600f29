// Which words differ between two texts: Myers' O(ND) difference algorithm (1986).

const MOST_EDITS = 1500; // bounds time and memory on long recordings

/** Two lists to the indices [i, j] of words in common; null if they differ too much to say. */
export function common(a, b) {
  const from = [];
  let ends = new Map([[1, 0]]);
  for (let edits = 0; edits <= Math.min(a.length + b.length, MOST_EDITS); edits++) {
    from.push(ends);
    ends = new Map(ends);
    for (let k = -edits; k <= edits; k += 2) {
      let x = down(from[edits], k, edits) ? from[edits].get(k + 1) : from[edits].get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      ends.set(k, x);
      if (x >= a.length && x - k >= b.length) return trace(from, edits, a.length, b.length);
    }
  }
  return null;
}

const down = (ends, k, edits) => k === -edits || (k !== edits && ends.get(k - 1) < ends.get(k + 1));

function trace(from, edits, x, y) {
  const pairs = [];
  for (; edits >= 0; edits--) {
    const k = x - y;
    const before = down(from[edits], k, edits) ? k + 1 : k - 1;
    const start = edits ? from[edits].get(before) : 0;
    const corner = edits ? start + (before < k ? 1 : 0) : 0;
    while (x > corner) pairs.push([--x, --y]);
    x = start;
    y = start - before;
  }
  return pairs.reverse();
}

/** As words are compared: case and punctuation do not count. */
export const plain = (word) => word.toLowerCase().replace(/[^\p{L}\p{N}]/gu, "");
