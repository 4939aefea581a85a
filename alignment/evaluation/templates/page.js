
"use strict";
// The page is whole without this script. With it, answers can be searched, filtered, sorted and turned over page by page,
// and charts say their values. Whatever a model or a user wrote gets into the page as textContent only.
(function () {
  const PAGE = 20; // answers at once, as in sample_browser.py
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("page-data").textContent);

  // ---- charts: the values under the pointer, or where the arrow keys went

  function speaking(figure, chart) {
    const svg = figure.querySelector("svg"), cursor = svg.querySelector(".cursor");
    const readout = figure.querySelector("output"), atRest = readout.textContent;
    const steps = [...new Set(chart.curves.flatMap(([, steps]) => steps))].sort((a, b) => a - b);
    let place = steps.length - 1;
    const nearest = (among, step) => among.reduce(
      (best, value, i) => (Math.abs(value - step) < Math.abs(among[best] - step) ? i : best), 0);
    const said = (value) => value.toLocaleString("en", { maximumSignificantDigits: 4 });

    function say(step) {
      place = nearest(steps, step);
      const at = steps[place];
      const share = (at - chart.from) / (chart.to - chart.from);
      const x = chart.left + share * (chart.right - chart.left);
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.style.display = "inline";
      const values = chart.curves.map(([label, steps, values]) => {
        const i = nearest(steps, at);
        return label + " " + said(values[i]) + (steps[i] === at ? "" : " (step " + said(steps[i]) + ")");
      });
      readout.textContent = "step " + at.toLocaleString("en") + ": " + values.join("; ");
    }
    function rest() {
      cursor.style.display = "none";
      readout.textContent = atRest;
      place = steps.length - 1;
    }
    function follow(event) {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      say(chart.from + (x - chart.left) / (chart.right - chart.left) * (chart.to - chart.from));
    }
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") rest(); });
    svg.addEventListener("blur", rest);
    svg.addEventListener("keydown", (event) => {
      const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!move) return;
      event.preventDefault();
      say(steps[Math.min(steps.length - 1, Math.max(0, place + move))]);
    });
  }

  // ---- answers

  function browse(rows) {
    const list = find("samples"), card = find("card").content.firstElementChild;
    const search = find("search"), shown = find("shown"), order = find("order"), against = find("against");
    const count = find("count"), turn = find("turn"), previous = find("previous"), next = find("next");
    const which = () => (against ? Number(against.value) : 0); // the side, behind the first, that is held against it
    const change = (row) => row.changes[which()] || null;
    let texts = null; // what is searched, made when it is first asked for
    let matching = rows, page = 0;

    function filled(row) {
      const article = card.cloneNode(true), part = (name, of = article) => of.querySelector("." + name);
      part("place").textContent = row.place;
      part("prompt").textContent = row.prompt;
      article.querySelectorAll(".badge").forEach((badge, i) => {
        const found = row.changes[i];
        badge.hidden = !found;
        badge.classList.remove("good", "bad", "plain");
        if (!found) return;
        badge.classList.add(found.tone);
        part("value", badge).textContent = found.text;
      });
      article.querySelectorAll(".sides > div").forEach((box, i) => {
        const side = row.sides[i], text = part("model-text", box);
        part("told", box).textContent = side.facts ? ": " + side.facts : "";
        text.replaceChildren(...side.pieces.map((piece, place) => {
          if (place % 2 === 0) return document.createTextNode(piece);
          const mark = document.createElement(text.dataset.mark);
          mark.textContent = piece;
          return mark;
        }));
        text.classList.toggle("empty", !side.pieces.length);
      });
      return article;
    }

    function draw() {
      const pages = Math.max(1, Math.ceil(matching.length / PAGE));
      page = Math.min(page, pages - 1);
      const start = page * PAGE, now = matching.slice(start, start + PAGE);
      list.replaceChildren(...now.map(filled));
      turn.hidden = pages < 2;
      find("where").textContent = "page " + (page + 1) + " of " + pages;
      previous.disabled = page === 0;
      next.disabled = page === pages - 1;
      const range = pages > 1 ? ", showing " + (start + 1) + " to " + (start + now.length) : "";
      count.textContent = matching.length + " of " + rows.length + range;
    }

    function wanted(row, i, words) {
      const found = change(row), kind = shown ? shown.value : "all";
      if (kind === "none" ? found : kind !== "all" && (!found || found.tone !== kind)) return false;
      return words.every((word) => texts[i].includes(word));
    }

    const sorts = {
      up: (row) => -change(row).value,
      down: (row) => change(row).value,
      long: (row) => -row.sides[row.sides.length > 1 ? which() + 1 : 0].length,
      short: (row) => row.sides[row.sides.length > 1 ? which() + 1 : 0].length,
    };

    function update() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      if (words.length && !texts) {
        const joined = (row) => [row.prompt, ...row.sides.map((side) => side.pieces.join(""))].join("\n");
        texts = rows.map((row) => joined(row).toLowerCase());
      }
      matching = rows.filter((row, i) => wanted(row, i, words));
      const sort = sorts[order.value];
      if (sort) {
        const scored = order.value === "up" || order.value === "down";
        const key = (row) => (scored && !change(row) ? Infinity : sort(row)); // without a score: behind the others
        const keys = new Map(matching.map((row) => [row, key(row)]));
        matching = [...matching].sort((a, b) => (keys.get(a) < keys.get(b) ? -1 : keys.get(a) > keys.get(b) ? 1 : 0));
      }
      page = 0;
      draw();
    }

    function move(by) {
      page += by;
      draw();
      find("answers").scrollIntoView();
      list.focus({ preventScroll: true });
    }

    search.addEventListener("input", update);
    [shown, order, against].forEach((choice) => choice && choice.addEventListener("change", update));
    previous.addEventListener("click", () => move(-1));
    next.addEventListener("click", () => move(1));
    find("tools").hidden = false;
    update(); // a browser that goes back to a page fills its controls in again
  }

  document.querySelectorAll("figure.chart").forEach((figure, i) => speaking(figure, data.charts[i]));
  if (data.samples.length) browse(data.samples);
})();
