/** A picture of what the camera sees. The camera is on only while its dialog is open. */

import {$, make} from "./dom.js";

/** `take` gets the picture's file, `fail` what went wrong. */
export async function photograph(take, fail) {
  if (!navigator.mediaDevices) {
    fail("The browser gives a camera only to pages that come over HTTPS or from its own machine.");
    return;
  }
  const video = $("viewfinder"), dialog = $("camera-dialog");
  dialog.returnValue = "";
  dialog.showModal();
  let tracks = [];
  const closed = new Promise((done) => dialog.addEventListener("close", done, {once: true}));
  try {
    const seen = await navigator.mediaDevices.getUserMedia({video: {facingMode: "environment", width: {ideal: 1920}}});
    tracks = seen.getTracks();
    video.srcObject = seen;
    await video.play();
    await closed;
    if (dialog.returnValue) await take([await frameOf(video)]);
  } catch (error) {
    dialog.close();
    fail(`The camera gives no picture: ${error.message}`);
  } finally {
    for (const track of tracks) track.stop();
    video.srcObject = null;
  }
}

async function frameOf(video) {
  const canvas = make("canvas", {width: video.videoWidth, height: video.videoHeight});
  canvas.getContext("2d").drawImage(video, 0, 0);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", .95));
  return new File([blob], "camera.jpg", {type: "image/jpeg"});
}
