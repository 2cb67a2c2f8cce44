"use strict";
// A heatmap of an answer on its picture, pixel for pixel as handlers/render.py draws it.

const Heat = (() => {
  // As HEAT there: dark violet, red, orange, pale yellow.
  const STOPS = [
    [0, [48, 12, 84]],
    [0.35, [176, 32, 92]],
    [0.7, [248, 124, 36]],
    [1, [255, 250, 190]],
  ];
  const COLOURS = Array.from({ length: 256 }, (_, step) => colour(step / 255));

  function colour(warmth) {
    const above = Math.max(1, STOPS.findIndex(([place]) => place >= warmth));
    const [low, first] = STOPS[above - 1];
    const [high, last] = STOPS[above];
    const share = (warmth - low) / (high - low);
    return first.map((value, channel) => value + (last[channel] - value) * share);
  }

  function canvas(width, height) {
    return Object.assign(document.createElement("canvas"), { width, height });
  }

  // The 8-bit PNG's cells as the numbers that they stand for.
  async function cells({ png, width, height, min, max }) {
    const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
    const grey = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    const context = canvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(grey, 0, 0);
    const { data } = context.getImageData(0, 0, width, height);
    const levels = data.filter((_, place) => place % 4 === 0);
    return Float32Array.from(levels, (level) => min + (level / 255) * (max - min));
  }

  // The geometry on the picture resized to width x height pixels.
  function resized(geometry, width, height) {
    const across = width / geometry.picture_width;
    const down = height / geometry.picture_height;
    const factors = [across, down, across, down];
    return {
      ...geometry,
      picture_width: width,
      picture_height: height,
      scale_x: geometry.scale_x / across,
      scale_y: geometry.scale_y / down,
      window: geometry.window && geometry.window.map((value, side) => value * factors[side]),
    };
  }

  // For each pixel of a side the two cells that it lies between, and its share of the second:
  // linear between the cells' middles, constant beyond the outer ones; nothing (`on` is 0) off a
  // clipped frame and off the window.
  function between(pixels, count, { scale, offset, frame, clipped, window }) {
    return Array.from({ length: pixels }, (_, pixel) => {
      const place = pixel + 0.5;
      const share = (place * scale + offset) / frame;
      const middle = Math.min(Math.max(share * count - 0.5, 0), count - 1);
      const low = Math.floor(middle);
      const seen = !window || (place >= window[0] && place <= window[1]);
      const inside = !clipped || (share >= 0 && share <= 1);
      const high = Math.min(low + 1, count - 1);
      return { low, high, fraction: middle - low, on: seen && inside ? 1 : 0 };
    });
  }

  // A grid of values on the picture's pixels, bilinear.
  function onPicture(values, width, height, geometry) {
    const { picture_width: across, picture_height: down, clipped, window } = geometry;
    const columns = between(across, width, {
      scale: geometry.scale_x,
      offset: geometry.offset_x,
      frame: geometry.frame_width,
      window: window && [window[0], window[2]],
      clipped,
    });
    const rows = between(down, height, {
      scale: geometry.scale_y,
      offset: geometry.offset_y,
      frame: geometry.frame_height,
      window: window && [window[1], window[3]],
      clipped,
    });
    const heat = new Float32Array(across * down);
    const line = new Float32Array(width);
    rows.forEach((row, y) => {
      for (let cell = 0; cell < width; cell++) {
        const upper = values[row.low * width + cell];
        const lower = values[row.high * width + cell];
        line[cell] = row.on * (upper + (lower - upper) * row.fraction);
      }
      columns.forEach(({ low, high, fraction, on }, x) => {
        heat[y * across + x] = on * (line[low] + (line[high] - line[low]) * fraction);
      });
    });
    return heat;
  }

  // The whole pixels of a side that a box touches, at least one.
  function touched(first, last, side) {
    const start = Math.min(Math.max(Math.floor(first), 0), side - 1);
    return [start, Math.min(Math.max(Math.ceil(last), start + 1), side)];
  }

  // 0 ... 1: divided by the maximum; or inside the boxes alone, in each from its least value to its
  // largest, and where they overlap the larger value.
  function normalised(heat, width, height, boxes) {
    const shown = new Float32Array(heat.length);
    let flat = true;
    for (const box of boxes ?? [null]) {
      const [left, right] = box ? touched(box[0], box[2], width) : [0, width];
      const [top, bottom] = box ? touched(box[1], box[3], height) : [0, height];
      let low = box ? Infinity : 0;
      let high = -Infinity;
      const each = (visit) => {
        for (let y = top; y < bottom; y++) {
          for (let x = left; x < right; x++) visit(y * width + x);
        }
      };
      each((place) => {
        low = Math.min(low, heat[place]);
        high = Math.max(high, heat[place]);
      });
      if (!(high > low)) continue;
      flat = false;
      each((place) => {
        shown[place] = Math.max(shown[place], (heat[place] - low) / (high - low));
      });
    }
    return { shown, flat };
  }

  // The picture, greyed and dimmed where it is cold, under the colours of heat.
  function over(pixels, shown) {
    const mixed = new ImageData(pixels.width, pixels.height);
    for (let place = 0; place < shown.length; place++) {
      const warmth = Math.min(Math.max(shown[place], 0), 1);
      const strength = 0.75 * Math.sqrt(warmth);
      const colours = COLOURS[Math.round(warmth * 255)];
      const at = 4 * place;
      const grey = (pixels.data[at] + pixels.data[at + 1] + pixels.data[at + 2]) / 3;
      for (let channel = 0; channel < 3; channel++) {
        const pixel = pixels.data[at + channel];
        const dimmed = (0.5 * pixel + 0.5 * grey) * 0.6;
        const bare = dimmed + (pixel - dimmed) * warmth;
        mixed.data[at + channel] = bare * (1 - strength) + colours[channel] * strength;
      }
      mixed.data[at + 3] = 255;
    }
    return mixed;
  }

  // An explanation over a picture's pixels (ImageData, of the picture's size or smaller).
  // `flat`: there is no heat to see.
  async function drawn(explanation, pixels) {
    // An older server's answer has no `boxes`.
    const { heatmap, in_box: inBox, box, boxes = [] } = explanation;
    const { width, height } = pixels;
    const geometry = resized(explanation.geometry, width, height);
    const across = width / explanation.geometry.picture_width;
    const down = height / explanation.geometry.picture_height;
    const own = (boxes.length ? boxes : [box]).map(([x1, y1, x2, y2]) => {
      return [x1 * across, y1 * down, x2 * across, y2 * down];
    });
    const heat = onPicture(await cells(heatmap), heatmap.width, heatmap.height, geometry);
    const { shown, flat } = normalised(heat, width, height, inBox ? own : null);
    return { image: over(pixels, shown), flat };
  }

  const gradient = STOPS.map(([place, values]) => `rgb(${values.join(" ")}) ${100 * place}%`);
  return { canvas, drawn, gradient: `linear-gradient(to right, ${gradient.join(", ")})` };
})();
