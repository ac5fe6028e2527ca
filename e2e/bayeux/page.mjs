// Gives a page what node.mjs gives Node. Faye is a classic script before it.
import { CometD } from "cometd";
import { AckExtension } from "cometd/AckExtension.js";
import { BinaryExtension } from "cometd/BinaryExtension.js";
import { ReloadExtension } from "cometd/ReloadExtension.js";
import { TimeStampExtension } from "cometd/TimeStampExtension.js";
import { TimeSyncExtension } from "cometd/TimeSyncExtension.js";
import { suite } from "./clients.mjs";

window.suite = suite({
	CometD,
	Faye: window.Faye,
	EventSource: window.EventSource,
	extensions: { ack: AckExtension, binary: BinaryExtension, reload: ReloadExtension, timestamp: TimeStampExtension, timesync: TimeSyncExtension },
});
