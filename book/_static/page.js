// Loaded before everything else on a page.

// The widgets' renderer asks MathJax 2 (MathJax.Hub.Queue) to typeset a label; pass the request on to MathJax 3.
{
  const hub = {
    Queue(...requests) {
      const mathjax = window.MathJax;
      if (!mathjax.startup) return; // a page without mathematics
      for (const [, , element] of requests) {
        mathjax.startup.promise = mathjax.startup.promise.then(() => mathjax.typesetPromise(element ? [element] : undefined));
      }
    },
  };
  let current = Object.defineProperty(window.MathJax ?? {}, "Hub", { value: hub }); // what the page has set for it stays
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => current,
    set(value) {
      current = value;
      if (!("Hub" in value)) Object.defineProperty(value, "Hub", { value: hub });
    },
  });
}

// What is folded in a cell tagged as a solution is called that.
document.addEventListener("DOMContentLoaded", () => {
  for (const title of document.querySelectorAll(".cell.tag_solution > details > summary > p")) {
    title.textContent = title.textContent.replace("code", "the solution");
  }
});

// What is wider than its box scrolls by itself: it fades where it goes on, a keyboard can reach it, and it has a name.
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  const kinds = {
    ".pst-scrollable-table-container, div.cell_output > .output": "Table", "pre": "Code",
    "div.math, span.math": "Formula", ".vaekit-view": "Figure",
  };
  const place = (box) => {
    const [here, end] = [box.scrollLeft, box.scrollWidth - box.clientWidth - 1];
    box.classList.toggle("at-start", here < 1);
    box.classList.toggle("midway", here >= 1 && here < end);
    box.classList.toggle("at-end", here >= end);
  };
  const look = () => {
    for (const [boxes, name] of Object.entries(kinds)) {
      for (const box of document.querySelectorAll(`.bd-article :is(${boxes})`)) {
        const formula = box.matches("span.math") && box.firstElementChild;
        const room = formula ? box.closest("p, li, dd, td, th, figcaption, div")?.clientWidth : box.clientWidth;
        const wide = (formula ? formula.getBoundingClientRect().width : box.scrollWidth) > room + 1;
        if (wide === box.classList.contains("vaekit-scrolls")) continue;
        box.classList.toggle("vaekit-scrolls", wide);
        if (!wide) continue;
        box.tabIndex = 0;
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", `${name}, scrolls sideways`);
        box.addEventListener("scroll", () => place(box), { passive: true });
        place(box);
      }
    }
  };
  look();
  window.addEventListener("resize", look);
  document.addEventListener("toggle", look, true); // what was folded has no width until it is open
});

// The contents at the right follow the reader.
document.addEventListener("DOMContentLoaded", () => {
  const contents = document.querySelector(".bd-sidebar-secondary");
  window.addEventListener("activate.bs.scrollspy", (event) => {
    const link = event.relatedTarget;
    if (!contents || !link) return;
    const [above, below] = [link.offsetTop - 80, link.offsetTop + link.offsetHeight + 80 - contents.clientHeight];
    if (contents.scrollTop > above) contents.scrollTop = above;
    if (contents.scrollTop < below) contents.scrollTop = below;
  });
});

// Names for what has only a picture: the chevrons that unfold the contents, and the sliders.
document.addEventListener("DOMContentLoaded", () => {
  for (const summary of document.querySelectorAll("nav li > details > summary")) {
    const link = summary.closest("li").querySelector("a");
    if (!summary.textContent.trim() && link) summary.setAttribute("aria-label", `Pages under ${link.textContent.trim()}`);
  }
  const name = (handle) => {
    const slider = handle.closest(".widget-inline-hbox");
    const [label, value] = [".widget-label", ".widget-readout"].map((part) => slider?.querySelector(part)?.textContent.trim());
    if (label && handle.getAttribute("aria-label") !== label) handle.setAttribute("aria-label", label);
    if (value && handle.getAttribute("aria-valuetext") !== value) handle.setAttribute("aria-valuetext", value);
  };
  const nameAll = () => document.querySelectorAll(".noUi-handle").forEach(name);
  if (document.querySelector('script[type="application/vnd.jupyter.widget-view+json"]')) {
    new MutationObserver(nameAll).observe(document.body, { childList: true, subtree: true, characterData: true });
  }
});

// Paper is light.
{
  let theme;
  window.addEventListener("beforeprint", () => { theme = document.documentElement.dataset.theme; document.documentElement.dataset.theme = "light"; });
  window.addEventListener("afterprint", () => { document.documentElement.dataset.theme = theme; });
}

// A card shows what a link means, for the mouse and for the keyboard; Escape closes it.
document.addEventListener("DOMContentLoaded", () => {
  const cards = new Map([...document.querySelectorAll("template.vaekit-card")].map((card) => [card.dataset.for, card]));
  if (!cards.size) return;
  const box = Object.assign(document.createElement("div"), { className: "vaekit-card", id: "vaekit-card", hidden: true });
  box.setAttribute("role", "tooltip");
  document.body.append(box);
  const hide = () => { box.hidden = true; document.querySelector("[aria-describedby=vaekit-card]")?.removeAttribute("aria-describedby"); };
  const show = (link, card) => {
    hide();
    box.replaceChildren(card.content.cloneNode(true));
    box.hidden = false;
    link.setAttribute("aria-describedby", "vaekit-card");
    const place = link.getBoundingClientRect();
    const under = place.bottom + box.offsetHeight + 12 < innerHeight;
    box.style.left = `${Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 8)) + scrollX}px`;
    box.style.top = `${(under ? place.bottom + 6 : place.top - box.offsetHeight - 6) + scrollY}px`;
    if (box.textContent.includes("\\(")) window.MathJax?.typesetPromise?.([box]);
  };
  for (const link of document.querySelectorAll(".bd-article a[href]")) {
    const href = link.getAttribute("href");
    const card = cards.get(href) ?? (link.classList.contains("vaekit-term") && cards.get(href.slice(href.indexOf("#"))));
    if (!card) continue;
    link.addEventListener("mouseenter", () => show(link, card));
    link.addEventListener("focus", () => show(link, card));
    link.addEventListener("mouseleave", hide);
    link.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
});

// Excerpts of search results are words: formulas would stand there as LaTeX.
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined" || !Search.htmlToText) return;
  const plain = Search.htmlToText;
  Search.htmlToText = (...page) => plain(...page).replace(/\\\([^]*?\\\)|\\\[[^]*?\\\]|\\begin\{(\w+\*?)\}[^]*?\\end\{\1\}/g, "…");
});

// Opened from disk a page may not read the others, so search results come without excerpts.
document.addEventListener("DOMContentLoaded", () => {
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
});
