// One of several stored pictures, chosen by one slider or two.
vaekitLive.kind("slider", (host, { pictures, axes, alt }) => {
  const { make, slider, controls } = vaekitLive.parts;
  const at = axes.map(({ start }) => start);
  const image = make("img");
  Object.assign(image.style, { display: "block", margin: "0 auto", background: "#fff", borderRadius: "6px" });
  const show = () => {
    const index = axes.length === 2 ? at[0] * axes[1].labels.length + at[1] : at[0];
    image.src = `data:image/png;base64,${pictures[index]}`;
    image.alt = `${alt} (${axes.map(({ description, labels }, k) => `${description} = ${labels[at[k]]}`).join(", ")})`;
    host.state = { at: [...at], index };
  };
  const sliders = axes.map(({ description, labels }, k) => labels.length > 1 && slider({
    label: description, min: 0, max: labels.length - 1, step: 1, value: at[k], text: (step) => labels[step],
    on: (step) => { at[k] = step; show(); },
  }).element).filter(Boolean);
  show();
  host.box.append(image, controls(...sliders));
});
