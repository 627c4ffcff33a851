/** A recording of what the microphone hears, as a WAV of one channel. It hears only while its button is pressed. */

import {$} from "./dom.js";

const RATE = 16_000;  // samples a second, as models hear
const LONGEST = 300_000;  // milliseconds
const HEAD = 44;  // bytes before the samples of a WAV

let running = null;

/** Begin, or end what runs: then `take` gets the recording's file, or `fail` what went wrong. */
export async function listen(take, fail) {
  if (running) { running.stop(); return; }
  if (!navigator.mediaDevices) {
    fail("The browser gives a microphone only to pages that come over HTTPS or from its own machine.");
    return;
  }
  let tracks = [];
  try {
    const heard = await navigator.mediaDevices.getUserMedia({audio: true});
    tracks = heard.getTracks();
    const blob = await recorded(heard);
    await take([new File([await wavOf(blob)], "recording.wav", {type: "audio/wav"})]);
  } catch (error) {
    fail(`The microphone gives no sound: ${error.message}`);
  } finally {
    for (const track of tracks) track.stop();
    running = null;
    show("Record", false);
  }
}

/** What is heard until the button is pressed again, or for too long. */
async function recorded(heard) {
  const pieces = [], recorder = running = new MediaRecorder(heard);
  const ended = new Promise((done) => { recorder.onstop = done; });
  recorder.ondataavailable = ({data}) => pieces.push(data);
  recorder.start();
  show("Stop recording", true);
  const tooLong = setTimeout(() => recorder.stop(), LONGEST);
  await ended;
  clearTimeout(tooLong);
  return new Blob(pieces, {type: recorder.mimeType});
}

function show(text, on) {
  $("record").textContent = text;
  $("record").classList.toggle("stop", on);
  $("record").setAttribute("aria-pressed", String(on));
}

/** A sound that the browser can read, as a WAV of one channel with 16 bits a sample. */
async function wavOf(blob) {
  const samples = mixed(await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer()));
  const data = new DataView(new ArrayBuffer(HEAD + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((one, place) => data.setUint8(at + place, one.charCodeAt(0)));
  text(0, "RIFF"); text(8, "WAVEfmt "); text(36, "data");
  const sizes = [[4, data.byteLength - 8], [16, 16], [24, RATE], [28, 2 * RATE], [40, 2 * samples.length]];
  for (const [at, value] of sizes) data.setUint32(at, value, true);
  for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]]) data.setUint16(at, value, true);
  for (const [place, value] of samples.entries()) {
    data.setInt16(HEAD + 2 * place, Math.round(32767 * Math.max(-1, Math.min(1, value))), true);
  }
  return data.buffer;
}

/** The mean of all channels. */
function mixed(heard) {
  const sum = new Float32Array(heard.length);
  for (let channel = 0; channel < heard.numberOfChannels; channel += 1) {
    for (const [place, value] of heard.getChannelData(channel).entries()) sum[place] += value / heard.numberOfChannels;
  }
  return sum;
}
