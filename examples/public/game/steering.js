// The player's direction: by keys, or by a mouse button or a finger that is held on the field.

const KEYS = {
  ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
  KeyA: [-1, 0], KeyD: [1, 0], KeyW: [0, -1], KeyS: [0, 1],
};
const NEAR = 12; // at this distance from the pointer, the player has arrived

export class Steering {
  direction = { x: 0, y: 0 };
  #field;
  #onChange;
  #keys = new Set();
  #pointer = null; // in units of the field, while it is held
  #place = null; // of the player

  /** `onChange(direction)` is called with { x, y }, each from -1 to 1. */
  constructor(field, onChange) {
    this.#field = field;
    this.#onChange = onChange;
    addEventListener("keydown", (event) => this.#press(event));
    addEventListener("keyup", ({ code }) => this.#release(code));
    addEventListener("blur", () => this.#stop());
    for (const type of ["pointerdown", "pointermove"]) field.addEventListener(type, (event) => this.#point(event));
    for (const type of ["pointerup", "pointercancel"]) field.addEventListener(type, () => this.#stop());
  }

  /** Set the player's place, { x, y }: with a pointer, the direction depends on it. */
  follow(place) {
    this.#place = place ?? null;
    if (this.#pointer) this.#update();
  }

  #press(event) {
    if (!KEYS[event.code] || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input")) return;
    event.preventDefault();
    this.#keys.add(event.code);
    this.#update();
  }

  #release(code) {
    if (this.#keys.delete(code)) this.#update();
  }

  #point(event) {
    if (event.type === "pointerdown") this.#field.setPointerCapture(event.pointerId);
    else if (!this.#pointer) return;
    const { left, top, width, height } = this.#field.getBoundingClientRect();
    this.#pointer = { x: ((event.clientX - left) / width) * 600, y: ((event.clientY - top) / height) * 600 };
    if (event.type === "pointerdown") this.#update(); // moves are sent with the next state, 20 times a second
  }

  #stop() {
    this.#keys.clear();
    this.#pointer = null;
    this.#update();
  }

  #update() {
    const { x, y } = this.#wanted();
    const isSame = Math.hypot(x - this.direction.x, y - this.direction.y) < 0.02;
    const isStop = x === 0 && y === 0;
    if (isSame && (!isStop || (this.direction.x === 0 && this.direction.y === 0))) return;
    this.direction = { x, y };
    this.#onChange(this.direction);
  }

  #wanted() {
    if (this.#pointer && this.#place) {
      const [x, y] = [this.#pointer.x - this.#place.x, this.#pointer.y - this.#place.y];
      const length = Math.hypot(x, y);
      return length < NEAR ? { x: 0, y: 0 } : { x: x / length, y: y / length };
    }
    const pressed = [...this.#keys].map((code) => KEYS[code]);
    const sum = (axis) => Math.sign(pressed.reduce((total, key) => total + key[axis], 0));
    return { x: sum(0), y: sum(1) };
  }
}
