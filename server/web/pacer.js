/** A recording at the pace of a microphone: frames of 20 ms by the clock of the sound device. */

const FRAME_S = 0.02;
const TICK_MS = 10;

export class Pacer {
  /**
   * @param {AudioContext} context
   * @param {number} frames how many there are
   * @param {(index: number, time: number) => void} onFrame `time`: when a microphone would have had its first sample
   * @param {() => void} onEnd
   */
  constructor(context, frames, onFrame, onEnd) {
    const start = context.currentTime;
    let next = 0;
    this._timer = setInterval(() => {
      for (; next < frames && start + (next + 1) * FRAME_S <= context.currentTime; next++) {
        onFrame(next, start + next * FRAME_S);
      }
      if (next < frames) return;
      this.close();
      onEnd();
    }, TICK_MS);
  }

  close() {
    clearInterval(this._timer);
  }
}
