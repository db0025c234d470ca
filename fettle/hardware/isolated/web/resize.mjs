// An image's pixels as the model's input: as fettle/preprocessing.py makes it, in JavaScript.
//
// A canvas scales by other rules than the images that the model was trained on, so the bilinear
// filter is written out here as Pillow has it: widened when shrinking, rounded after each pass.
// Pillow takes the columns first for some shapes, this one the rows: a tenth of the pixels are then a
// step of 1/255 off, none more.

// The weights of one axis: for each of `size` results, where its sources start and their shares.
function filterWeights(from, to, size) {
  const scale = (to - from) / size;
  const widened = Math.max(scale, 1);
  return (length) =>
    Array.from({ length: size }, (_, index) => {
      const centre = from + (index + 0.5) * scale;
      const start = Math.max(0, Math.floor(centre - widened + 0.5));
      const end = Math.min(length, Math.floor(centre + widened + 0.5));
      const shares = [];
      for (let at = start; at < end; at += 1) {
        shares.push(Math.max(0, 1 - Math.abs((at - centre + 0.5) / widened)));
      }
      const sum = shares.reduce((total, share) => total + share, 0);
      return { start, shares: shares.map((share) => share / sum) };
    });
}

// Resize one plane of bytes, `width` by `height`, to `across` by `down`, of the box given.
export function resizePlane(plane, width, height, across, down, box = [0, 0, width, height]) {
  const columns = filterWeights(box[0], box[2], across)(width);
  const rows = filterWeights(box[1], box[3], down)(height);
  const middle = new Uint8ClampedArray(across * height);
  for (let y = 0; y < height; y += 1) {
    for (let x = 0; x < across; x += 1) {
      const { start, shares } = columns[x];
      let sum = 0;
      for (let k = 0; k < shares.length; k += 1) sum += plane[y * width + start + k] * shares[k];
      middle[y * across + x] = Math.floor(sum + 0.5);
    }
  }
  const out = new Uint8ClampedArray(across * down);
  for (let y = 0; y < down; y += 1) {
    const { start, shares } = rows[y];
    for (let x = 0; x < across; x += 1) {
      let sum = 0;
      for (let k = 0; k < shares.length; k += 1) sum += middle[(start + k) * across + x] * shares[k];
      out[y * across + x] = Math.floor(sum + 0.5);
    }
  }
  return out;
}

// Bytes RGBA of an opaque image → planes of the model's channels, before any resizing.
export function planes(rgba, channels) {
  const count = rgba.length / 4;
  const made = Array.from({ length: channels }, () => new Uint8ClampedArray(count));
  for (let at = 0; at < count; at += 1) {
    const [r, g, b] = [rgba[4 * at], rgba[4 * at + 1], rgba[4 * at + 2]];
    if (channels === 1) made[0][at] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
    else [made[0][at], made[1][at], made[2][at]] = [r, g, b];
  }
  return made;
}

// Make float32 [1, C, S, S] of an image's RGBA bytes; `pre` is the release's preprocess.json.
export function modelInput(rgba, width, height, pre) {
  const { size_px: side, channels, fit } = pre;
  const level = (value, channel) => (Array.isArray(value) ? value[channel] : value);
  const out = new Float32Array(channels * side * side);
  planes(rgba, channels).forEach((plane, channel) => {
    const [mean, std] = [level(pre.mean, channel), level(pre.std, channel)];
    const bytes = fitted(plane, width, height, side, fit, Math.round(255 * mean));
    for (let at = 0; at < bytes.length; at += 1) {
      out[channel * side * side + at] = bytes[at] / (255 * std) - mean / std;
    }
  });
  return out;
}

function fitted(plane, width, height, side, fit, grey) {
  if (width === side && height === side) return plane;
  if (fit === "pad") {
    const scale = side / Math.max(width, height);
    const across = Math.max(1, Math.round(width * scale));
    const down = Math.max(1, Math.round(height * scale));
    const inside = resizePlane(plane, width, height, across, down);
    const whole = new Uint8ClampedArray(side * side).fill(grey);
    const [left, top] = [(side - across) >> 1, (side - down) >> 1];
    for (let y = 0; y < down; y += 1) {
      whole.set(inside.subarray(y * across, (y + 1) * across), (top + y) * side + left);
    }
    return whole;
  }
  const least = Math.min(width, height);
  const [x, y] = [(width - least) / 2, (height - least) / 2];
  const box = fit === "crop" ? [x, y, x + least, y + least] : undefined;
  return resizePlane(plane, width, height, side, side, box);
}
