package disk

import (
	"context"

	"github.com/halley-comet/halley/engine"
)

// Import stores messages as Append does, whole or not at all, and lets them
// keep their times as far as those do not go back. It is for messages of
// another log, or of another time: whoever has a cursor of those is to come upon
// a gap, so the log should be opened with Options.NewEpoch. A time to come is
// that of all later messages until it has come.
func (l *Log) Import(ctx context.Context, messages []engine.Message) error {
	_, err := l.append(ctx, engine.Batch{Messages: messages}, true)
	return err
}
