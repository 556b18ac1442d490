/** A video of the picture with the sound and a moving playhead, recorded in real time by the browser's MediaRecorder. */

const TYPES = ["video/mp4;codecs=avc1.42E01F,mp4a.40.2", "video/webm;codecs=vp9,opus", "video/webm;codecs=vp8,opus"];
const FRAMES_A_SECOND = 25;
const LEAD_S = 0.1;
const MAX_SECONDS = 10;

/** Number of recordings; each holds the device by a name of its own, since an aborted one may still be ending. */
let recordings = 0;

/** The first type that this browser can record; undefined if none. */
export const videoType = () =>
  "captureStream" in HTMLCanvasElement.prototype && globalThis.MediaRecorder !== undefined
    ? TYPES.find((type) => MediaRecorder.isTypeSupported(type))
    : undefined;

/**
 * Records the first MAX_SECONDS of a take. Resolves with null if aborted.
 * @param {object} parts
 * @param {import("./device.js").Device} parts.device
 * @param {HTMLCanvasElement} parts.picture
 * @param {{left: number, right: number, top: number, bottom: number}} parts.axis of the picture
 * @param {string} parts.colour of the playhead
 * @param {() => {buffer: AudioBuffer, level: number} | null} parts.sound called when the device is running
 * @param {AbortSignal} parts.signal
 * @param {(seconds: number, total: number) => void} parts.onProgress called once a second
 * @returns {Promise<Blob | null>}
 */
export async function recordVideo({ device, picture, axis, colour, sound, signal, onProgress }) {
  const holder = `video ${++recordings}`;
  const context = await device.hold(holder);
  try {
    const heard = sound();
    if (heard === null) throw new Error("Play this version once, then record it.");
    const { buffer, level } = heard;
    const canvas = Object.assign(document.createElement("canvas"), { width: picture.width, height: picture.height });
    const paint = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    const draw = (/** @type {number} */ seconds) => {
      paint.drawImage(picture, 0, 0);
      paint.fillStyle = colour;
      const left = axis.left + ((axis.right - axis.left) * seconds) / buffer.duration;
      paint.fillRect(Math.round(left), axis.top, 3, axis.bottom - axis.top);
    };
    draw(0);
    const out = new MediaStreamAudioDestinationNode(context);
    const gain = new GainNode(context, { gain: level });
    const source = new AudioBufferSourceNode(context, { buffer });
    source.connect(gain).connect(out);
    const stream = canvas.captureStream(FRAMES_A_SECOND);
    const recorder = new MediaRecorder(new MediaStream([...stream.getTracks(), ...out.stream.getTracks()]), {
      mimeType: videoType(),
    });
    /** @type {Blob[]} */
    const parts = [];
    recorder.ondataavailable = ({ data }) => parts.push(data);
    const seconds = Math.min(MAX_SECONDS, buffer.duration);
    const stopped = new Promise((resolve, reject) => {
      recorder.onstop = resolve;
      recorder.onerror = () => reject(new Error("This browser could not record the video."));
    });
    const start = context.currentTime + LEAD_S;
    let timer = 0;
    let told = -1;
    source.start(start, 0, seconds);
    try {
      recorder.start();
      timer = setInterval(() => {
        const at = Math.max(0, context.currentTime - start);
        if (at > seconds || signal.aborted) {
          if (recorder.state === "recording") recorder.stop();
          return;
        }
        draw(at);
        if (Math.floor(at) === told) return;
        told = Math.floor(at);
        onProgress(told, Math.ceil(seconds));
      }, 1000 / FRAMES_A_SECOND);
      await stopped;
    } finally {
      clearInterval(timer);
      source.stop();
      for (const track of stream.getTracks()) track.stop();
    }
    return signal.aborted ? null : new Blob(parts, { type: recorder.mimeType.split(";")[0] });
  } finally {
    device.release(holder);
  }
}
