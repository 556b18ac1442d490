/**
 * A button that is held, or tapped once to start and once to stop, by pointer, keyboard or assistive technology. Its
 * `data-held` says whether it is currently held.
 */

const TAP_MS = 350;

/**
 * @param {HTMLElement} button
 * @param {{isOn: () => boolean, start: () => void, stop: (held: boolean) => void}} action `held`: stopped by a release
 */
export function holdOrTap(button, { isOn, start, stop }) {
  let pressedAt = -1;
  let began = false;
  const press = () => {
    if (pressedAt >= 0) return;
    pressedAt = performance.now();
    began = !isOn();
    button.dataset.held = "true";
    if (began) start();
    else stop(false);
  };
  const release = () => {
    const held = pressedAt >= 0 && performance.now() - pressedAt > TAP_MS;
    pressedAt = -1;
    button.dataset.held = "false";
    if (began && held && isOn()) stop(true);
    began = false;
  };
  button.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (event.pointerId > 0) button.setPointerCapture?.(event.pointerId);
    press();
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, release);
  const isKey = (/** @type {KeyboardEvent} */ { key }) => key === " " || key === "Enter";
  button.addEventListener("keydown", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    if (!event.repeat) press();
  });
  button.addEventListener("keyup", (event) => {
    if (!isKey(event)) return;
    event.preventDefault();
    release();
  });
  button.addEventListener("blur", release);
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  button.addEventListener("click", (event) => {
    if (event.detail !== 0) return; // a pointer, already handled; assistive technology only clicks
    press();
    pressedAt = -1;
    button.dataset.held = "false";
    began = false;
  });
}
