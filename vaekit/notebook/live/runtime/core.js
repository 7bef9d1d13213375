// The element <vaekit-live kind="...">: it starts when it comes into view, reads its data and hands over to its kind.
// Every file is one block that adds parts to `vaekitLive`; a part that is there already (from the book) stays.
{
  const live = (globalThis.vaekitLive ??= { kinds: {} });
  live.part ??= (name, make) => (live[name] ??= make(live));
  live.kind ??= (name, start) => (live.kinds[name] ??= start);

  live.part("theme", () => {
    const light = {
      ink: "#1f2933", muted: "#5b6673", paper: "#ffffff", surface: "#f4f6f8", line: "#d3d9e0", grid: "#e8ecf0",
      blue: "#0072b2", orange: "#c24f00", green: "#00795a", purple: "#a3548a", yellow: "#9a6a00", sky: "#56b4e9",
    };
    const dark = {
      ink: "#e6edf3", muted: "#a3b1bf", paper: "#171c22", surface: "#222a32", line: "#414b56", grid: "#2b333c",
      blue: "#63bdf2", orange: "#f39a4d", green: "#3ecf9f", purple: "#e3a3cd", yellow: "#ecc14d", sky: "#2f7fae",
    };
    // Front ends name their themes differently, but all have a background: the first that is not transparent.
    const isDark = (element) => {
      for (let at = element; at; at = at.parentElement ?? at.getRootNode().host) {
        const [r, g, b, a = 1] = (getComputedStyle(at).backgroundColor.match(/[\d.]+/g) ?? []).map(Number);
        if (a > 0.5) return 0.3 * r + 0.59 * g + 0.11 * b < 110;
      }
      return false;
    };
    return { light, dark, isDark };
  });

  live.part("style", () => `
    :host { display: block; }
    .live { background: var(--paper); color: var(--ink); font: 15px/1.4 system-ui, -apple-system, "Segoe UI", sans-serif;
      border: 1px solid var(--line); border-radius: 12px; padding: clamp(8px, 2vw, 18px); text-align: left; }
    .row { display: flex; flex-wrap: wrap; gap: 14px 18px; align-items: flex-start; }
    .row > * { flex: 1 1 220px; min-width: 0; }
    .row > .wide { flex: 2 1 330px; } .row > .narrow { flex: 0 1 135px; }
    .controls { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 190px), 1fr)); gap: 10px 22px; margin-top: 12px; }
    .buttons { display: flex; flex-wrap: wrap; gap: 8px; margin: 12px 0 0; align-items: center; } .buttons:first-child { margin: 0 0 12px; } .buttons + .row { margin-top: 12px; }
    label, .label { display: block; font-size: 14px; color: var(--muted); }
    label output { color: var(--ink); font-variant-numeric: tabular-nums; font-weight: 600; float: right; }
    input[type="range"] { width: 100%; margin: 2px 0 0; accent-color: var(--blue); height: 26px; }
    .check { display: inline-flex; gap: 6px; align-items: center; color: var(--ink); min-height: 32px; }
    .check input { accent-color: var(--blue); width: 18px; height: 18px; margin: 0; }
    button, select { font: inherit; font-size: 14px; color: var(--ink); background: var(--surface); border: 1px solid var(--line);
      border-radius: 8px; padding: 6px 12px; min-height: 34px; cursor: pointer; max-width: 100%; }
    button:hover { border-color: var(--blue); }
    button[aria-pressed="true"] { background: var(--blue); color: var(--paper); border-color: var(--blue); }
    button.thumb { padding: 3px; line-height: 0; }
    button.thumb[aria-pressed="true"] { background: var(--paper); box-shadow: 0 0 0 3px var(--blue); }
    :focus-visible { outline: 3px solid var(--orange); outline-offset: 2px; }
    canvas { display: block; width: 100%; border-radius: 6px; }
    canvas.drag { touch-action: none; cursor: grab; }
    canvas.pen { touch-action: none; cursor: crosshair; }
    .pixels { image-rendering: pixelated; border: 1px solid var(--line); background: var(--paper); }
    .heading { font-size: 14px; font-weight: 600; margin: 0 0 5px; }
    .status { margin: 12px 0 0; font-size: 15px; min-height: 2.8em; font-variant-numeric: tabular-nums; }
    .numbers { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 12px 0 0; padding: 0; }
    .numbers div { min-width: 84px; } .numbers dt { font-size: 13px; color: var(--muted); }
    .numbers dd { margin: 0; font-size: 19px; font-weight: 600; font-variant-numeric: tabular-nums; }
    .strip { display: flex; flex-wrap: wrap; gap: 6px; }
    .strip figure { margin: 0; flex: 0 1 72px; min-width: 0; } .strip figcaption { font-size: 12px; color: var(--muted); text-align: center; }
    .broken { color: var(--ink); background: var(--surface); border-left: 4px solid var(--orange); padding: 8px 12px; margin: 8px 0; }
    .still { display: none; } .visually-hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
    img { max-width: 100%; height: auto; }
    @media print { .live { display: none; } .still { display: block; } }
    @media (max-width: 420px) { .live { font-size: 14px; } .numbers dd { font-size: 17px; } }`);

  live.part("define", () => {
    if (!globalThis.HTMLElement) return false; // no page: the tests compare numbers under node
    const watched = globalThis.IntersectionObserver && new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        target.visible = isIntersecting;
        if (isIntersecting) target.start();
      }
    }, { rootMargin: "150px" });

    class Live extends HTMLElement {
      connectedCallback() {
        const wait = () => setTimeout(() => watched.observe(this)); // children and runtime are parsed by then
        if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", wait, { once: true });
        else wait();
      }

      disconnectedCallback() {
        watched.unobserve(this);
      }

      start() {
        if (this.shadowRoot) return;
        const begun = performance.now();
        const root = this.attachShadow({ mode: "open" });
        root.innerHTML = `<style>${live.style}</style><div class="live"></div><div class="still"><slot></slot></div>`;
        this.box = root.querySelector(".live");
        this.repaint = new Set(); // what is drawn again when the theme changes
        this.paint();
        const names = ["data-theme", "data-mode", "class", "theme", "data-jp-theme-light"];
        for (const element of [document.documentElement, document.body]) {
          new MutationObserver(() => this.paint()).observe(element, { attributes: true, attributeFilter: names });
        }
        try {
          const start = live.kinds[this.getAttribute("kind")];
          if (!start) throw new Error(`this page has no figure of the kind "${this.getAttribute("kind")}"`);
          const data = JSON.parse(this.querySelector('script[type="application/json"]').textContent);
          Promise.resolve(start(this, data)).then(() => (this.started = performance.now() - begun), (error) => this.fail(error));
        } catch (error) {
          this.fail(error);
        }
      }

      paint() {
        const colours = live.theme.isDark(this.parentElement ?? this) ? live.theme.dark : live.theme.light;
        if (colours === this.colours) return;
        this.colours = colours;
        for (const [name, value] of Object.entries(colours)) this.style.setProperty(`--${name}`, value);
        for (const draw of this.repaint) draw();
      }

      fail(error) {
        this.failed = String(error.message ?? error);
        this.box.className = "broken";
        this.box.setAttribute("role", "alert");
        this.box.textContent = `This live figure could not start: ${this.failed}. The picture shows how it would begin.`;
        this.shadowRoot.querySelector(".still").style.display = "block";
      }
    }
    // in the next task, when the rest of the runtime is there
    setTimeout(() => customElements.get("vaekit-live") || customElements.define("vaekit-live", Live));
    return true;
  });
}
