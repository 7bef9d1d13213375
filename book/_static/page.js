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
    "div.math, span.math": "Formula",
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

// Opened from disk a page may not read the others, so search results come without excerpts.
document.addEventListener("DOMContentLoaded", () => {
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
});
