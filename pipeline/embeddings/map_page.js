"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = id => document.getElementById(id);
  const canvas = element("map"), hover = element("hover"), sheet = element("sheet");
  const encoder = element("encoder"), colour = element("colour");
  const COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#ee8833", "#44aa99", "#997755", "#8866cc"];
  const REST = "#999999", NEAR = 14, MARGIN = 14;
  const labels = data.facts.filter(fact => fact.name.startsWith("label: "));
  const others = data.facts.filter(fact => !labels.includes(fact));
  const noMap = {xy: [], others: [], own: []};
  let points = [], current = null, chosen = null;

  const make = (tag, text) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const map = () => data.maps[encoder.value] || noMap;
  const value = (fact, image) => fact.values[fact.of[image]];
  const plain = name => ["unknown", "none", "no"].includes(name);

  function colours(fact) {
    let used = 0;
    return fact.values.map(name => (plain(name) || used >= COLOURS.length ? REST : COLOURS[used++]));
  }

  function thumbnail(image, scale) {
    const {width, height, across} = data.tile, made = make("canvas");
    made.width = width * scale;
    made.height = height * scale;
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", `Image ${image + 1}`);
    const left = (image % across) * width, top = Math.floor(image / across) * height;
    made.getContext("2d").drawImage(sheet, left, top, width, height, 0, 0, made.width, made.height);
    return made;
  }

  function facts(image) {
    return others.map(fact => `${fact.name}: ${value(fact, image)}`);
  }

  function agreement(image, other) {
    const known = labels.filter(fact => value(fact, image) !== "unknown" && value(fact, other) !== "unknown");
    const differ = known.filter(fact => value(fact, image) !== value(fact, other)).map(fact => fact.name.slice(7));
    if (!known.length) return "labels unknown";
    return differ.length ? `labels differ: ${differ.join(", ")}` : "same labels";
  }

  function place() {
    const side = canvas.clientWidth, high = Math.min(side, Math.max(320, window.innerHeight * 0.7));
    const ratio = window.devicePixelRatio || 1;
    canvas.style.height = `${high}px`;
    canvas.width = side * ratio;
    canvas.height = high * ratio;
    const wide = Math.max(1, ...map().xy.map(([x]) => x)), tall = Math.max(1, ...map().xy.map(([, y]) => y));
    const scale = Math.min((side - 2 * MARGIN) / wide, (high - 2 * MARGIN) / tall);
    const left = (side - wide * scale) / 2, bottom = (high + tall * scale) / 2;
    points = map().xy.map(([x, y]) => [left + x * scale, bottom - y * scale]);
    draw();
  }

  function draw() {
    const context = canvas.getContext("2d"), ratio = window.devicePixelRatio || 1;
    const fact = data.facts[colour.value], paint = colours(fact), ink = getComputedStyle(document.body).color;
    const size = canvas.clientWidth < 500 ? 2 : 3.2;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    const dot = (at, radius) => {
      context.beginPath();
      context.arc(points[at][0], points[at][1], radius, 0, 2 * Math.PI);
    };
    const order = [...points.keys()].sort((a, b) => (paint[fact.of[b]] === REST) - (paint[fact.of[a]] === REST));
    context.globalAlpha = 0.85;
    for (const at of order) {
      context.fillStyle = paint[fact.of[at]];
      dot(at, size);
      context.fill();
    }
    context.globalAlpha = 1;
    context.strokeStyle = ink;
    if (chosen !== null) {
      context.lineWidth = 1;
      const near = map().others[chosen];
      for (let at = 0; at < near.length; at += 2) {
        context.beginPath();
        context.moveTo(...points[chosen]);
        context.lineTo(...points[near[at]]);
        context.stroke();
      }
      context.lineWidth = 3;
      dot(chosen, size + 4);
      context.stroke();
    }
    if (current !== null) {
      context.lineWidth = 1.5;
      dot(current, size + 3);
      context.stroke();
    }
  }

  function legend() {
    const fact = data.facts[colour.value], paint = colours(fact), counts = fact.values.map(() => 0);
    fact.of.forEach(code => counts[code]++);
    const rows = fact.values.map((name, code) => [name, paint[code], counts[code]]);
    const kept = rows.filter(([name, of]) => of !== REST || plain(name));
    const rest = rows.filter(row => !kept.includes(row)).reduce((sum, row) => sum + row[2], 0);
    if (rest) kept.push(["others", REST, rest]);
    element("legend").replaceChildren(...kept.map(([name, of, count]) => {
      const item = make("li"), swatch = make("span");
      swatch.style.background = of;
      item.append(swatch, `${name} (${count})`);
      return item;
    }));
  }

  function point(image) {
    current = image;
    hover.hidden = image === null;
    if (image !== null) {
      hover.replaceChildren(thumbnail(image, 2), ...facts(image).map(text => make("p", text)));
      const [x, y] = points[image], wide = hover.offsetWidth, side = canvas.clientWidth;
      hover.style.left = `${Math.max(0, Math.min(side - wide, x + 14 + wide > side ? x - wide - 14 : x + 14))}px`;
      const lowest = canvas.clientHeight - hover.offsetHeight;
      hover.style.top = `${Math.max(0, Math.min(lowest, y - hover.offsetHeight / 2))}px`;
    }
    draw();
  }

  function neighbours(list, near, image) {
    const items = [];
    for (let at = 0; at < near.length; at += 2) {
      const other = near[at], item = make("li"), button = make("button");
      button.type = "button";
      const similarity = (near[at + 1] / data.scale).toFixed(4), values = others.map(fact => value(fact, other));
      const lines = [`similarity ${similarity}`, agreement(image, other), values.join("; ")];
      button.append(thumbnail(other, 1.5), ...lines.map(text => make("div", text)));
      button.addEventListener("click", () => choose(other));
      item.append(button);
      items.push(item);
    }
    list.replaceChildren(...(items.length ? items : [make("li", "none on this map")]));
  }

  function choose(image) {
    chosen = image;
    hover.hidden = true;
    element("chosen").hidden = image === null;
    if (image !== null) {
      const list = make("dl");
      [["id", data.ids[image]], ...others.map(fact => [fact.name, value(fact, image)])].forEach(([name, text]) => {
        const row = make("div");
        row.append(make("dt", name), make("dd", text));
        list.append(row);
      });
      element("image").replaceChildren(thumbnail(image, 3), list);
      neighbours(element("others"), map().others[image], image);
      neighbours(element("own"), map().own[image], image);
      element("status").textContent = `Chosen: ${facts(image).join("; ")}. Its nearest images are below the map.`;
    }
    draw();
  }

  function nearestTo(x, y) {
    let best = null, least = NEAR * NEAR;
    points.forEach(([px, py], at) => {
      const distance = (px - x) ** 2 + (py - y) ** 2;
      if (distance <= least) [best, least] = [at, distance];
    });
    return best;
  }

  function step(dx, dy) {
    if (current === null) return point(chosen === null ? 0 : chosen);
    const [x, y] = points[current];
    let best = null, least = Infinity;
    points.forEach(([px, py], at) => {
      const along = (px - x) * dx + (py - y) * dy, across = Math.abs((px - x) * dy) + Math.abs((py - y) * dx);
      if (along > 0.5 && along + 2 * across < least) [best, least] = [at, along + 2 * across];
    });
    if (best !== null) point(best);
    element("status").textContent = facts(current).join("; ");
  }

  const at = event => {
    const box = canvas.getBoundingClientRect();
    return nearestTo(event.clientX - box.left - canvas.clientLeft, event.clientY - box.top - canvas.clientTop);
  };
  const KEYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

  data.maps.forEach((one, number) => encoder.append(new Option(one.name, number)));
  data.facts.forEach((fact, number) => colour.append(new Option(fact.name, number)));
  encoder.addEventListener("change", () => {
    point(null);
    place();
    choose(chosen);
  });
  colour.addEventListener("change", () => {
    legend();
    draw();
  });
  canvas.addEventListener("pointermove", event => {
    const image = at(event);
    if (image !== current) point(image);
  });
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("blur", () => point(null));
  canvas.addEventListener("click", event => choose(at(event)));
  canvas.addEventListener("keydown", event => {
    if (event.key in KEYS && points.length) step(...KEYS[event.key]);
    else if (event.key === "Enter" || event.key === " ") choose(current);
    else if (event.key === "Escape") {
      point(null);
      choose(null);
    } else return;
    event.preventDefault();
  });
  window.addEventListener("resize", place);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  sheet.decode().finally(() => {
    legend();
    place();
  });
})();
