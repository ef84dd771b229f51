const WORLD = { x: 0, y: 60, w: 3600, h: 1420 };
/* From 84° north to 58° south, where land is; further only if a scene is there. */

class WorldMap {
  constructor(scenes, choose) {
    this.svg = byId("map");
    this.scenes = scenes.filter((scene) => scene.at);
    this.world = this.scenes.every((scene) => Math.abs(scene.at[1] - 13) < 70) ? WORLD : { x: 0, y: 0, w: 3600, h: 1800 };
    this.view = { ...this.world };
    this.choose = choose;
    this.marks = new Map(this.scenes.map((scene) => [scene, this.mark(scene)]));
    byId("marks").append(...this.marks.values());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    byId("zoom-in").addEventListener("click", () => this.zoom(0.5));
    byId("zoom-out").addEventListener("click", () => this.zoom(2));
    byId("zoom-all").addEventListener("click", () => this.zoom(Infinity));
    this.drag();
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.draw();
  }

  static position(scene) {
    return [(scene.at[0] + 180) * 10, (90 - scene.at[1]) * 10];
  }

  mark(scene) {
    const made = drawn("g", { class: "place", role: "button", tabindex: -1, "aria-label": scene.label, "aria-pressed": "false" },
      drawn("circle", { class: "reach", r: 12 }), drawn("circle", { class: "ring", r: 10 }), mark(scene.season, scene.split));
    made.append(drawn("title", {}, scene.label));
    made.addEventListener("click", () => { if (!this.dragged) this.choose(scene, "map"); });
    return made;
  }

  key(event) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const here = this.scenes.find((scene) => this.marks.get(scene) === document.activeElement);
    if (!here) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.choose(here, "enter");
    } else if (ways[event.key]) {
      event.preventDefault();
      const next = this.nearest(here, ways[event.key]);
      if (next) this.choose(next, "map");
    } else if (event.key === "+" || event.key === "-") {
      event.preventDefault();
      this.zoom(event.key === "+" ? 0.5 : 2);
    }
  }

  /** The nearest shown scene in a direction; what lies aside counts double. */
  nearest(here, [right, down]) {
    const [x, y] = WorldMap.position(here);
    let found = null, best = Infinity;
    for (const scene of this.scenes) {
      const [dx, dy] = WorldMap.position(scene).map((value, axis) => value - [x, y][axis]);
      const along = dx * right + dy * down, aside = Math.abs(dx * down) + Math.abs(dy * right);
      const distance = along + 2 * aside;
      if (scene.shown && scene !== here && along > 0 && distance < best) [found, best] = [scene, distance];
    }
    return found;
  }

  zoom(factor) {
    const w = Math.min(this.world.w, Math.max(this.world.w / 64, this.view.w * factor)), h = w * this.world.h / this.world.w;
    let x = this.view.x + this.view.w / 2, y = this.view.y + this.view.h / 2;
    if (factor < 1 && this.selected && this.selected.at) [x, y] = WorldMap.position(this.selected);
    this.look(x - w / 2, y - h / 2, w);
  }

  look(x, y, w) {
    const h = w * this.world.h / this.world.w, { world } = this;
    const within = (place, low, room) => Math.min(Math.max(place, low), low + room);
    this.view = { x: within(x, world.x, world.w - w), y: within(y, world.y, world.h - h), w, h };
    this.draw();
  }

  drag() {
    let start = null;
    this.svg.addEventListener("pointerdown", (event) => {
      this.dragged = false;
      start = { x: event.clientX, y: event.clientY, view: { ...this.view } };
    });
    this.svg.addEventListener("pointermove", (event) => {
      if (!start || this.view.w >= this.world.w) return;
      const right = event.clientX - start.x, down = event.clientY - start.y;
      if (!this.dragged && Math.hypot(right, down) < 5) return;
      if (!this.dragged) this.svg.setPointerCapture(event.pointerId);
      this.dragged = true;
      const scale = this.scale();
      this.look(start.view.x - right * scale, start.view.y - down * scale, this.view.w);
    });
    for (const end of ["pointerup", "pointercancel"]) this.svg.addEventListener(end, () => { start = null; });
  }

  /** Units of the drawing in a pixel of the screen. */
  scale() {
    return this.view.w / (this.svg.clientWidth || 800);
  }

  draw() {
    const { x, y, w, h } = this.view, zoomed = w < this.world.w;
    this.svg.setAttribute("viewBox", `${x} ${y} ${w} ${h}`);
    this.svg.classList.toggle("zoomed", zoomed);
    byId("zoom-out").disabled = byId("zoom-all").disabled = !zoomed;
    byId("zoom-in").disabled = w <= this.world.w / 64;
    const size = this.scale() * Math.min(1, Math.max(0.6, this.svg.clientWidth / 640));
    for (const [scene, made] of this.marks) {
      const [left, top] = WorldMap.position(scene);
      made.setAttribute("transform", `translate(${left} ${top}) scale(${size})`);
    }
  }

  /** Show which scenes are chosen by the filters, and which one is looked at. */
  show(selected) {
    this.selected = selected;
    const shown = this.scenes.filter((scene) => scene.shown), stop = shown.includes(selected) ? selected : shown[0];
    for (const [scene, made] of this.marks) {
      made.classList.toggle("gone", !scene.shown);
      made.setAttribute("aria-pressed", String(scene === selected));
      made.setAttribute("tabindex", scene === stop ? 0 : -1);
    }
    if (selected && selected.at) this.reveal(selected);
  }

  reveal(scene) {
    const made = this.marks.get(scene);
    if (made.nextSibling) made.parentNode.append(made); // on top of the others
    const [x, y] = WorldMap.position(scene), { view } = this;
    if (x < view.x || x > view.x + view.w || y < view.y || y > view.y + view.h) this.look(x - view.w / 2, y - view.h / 2, view.w);
  }

  focus(scene) {
    const made = this.marks.get(scene);
    if (made) made.focus({ preventScroll: true });
  }
}
