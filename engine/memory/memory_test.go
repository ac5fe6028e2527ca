package memory_test

import (
	"testing"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/enginetest"
	"github.com/halley-comet/halley/engine/memory"
)

func TestEngine(t *testing.T) {
	enginetest.Run(t, enginetest.Suite{
		Open: func(_ string, o enginetest.Options) (engine.Engine, error) {
			return memory.New(memory.Options{
				Retention: o.Retention,
				Rules:     o.Rules,
				KeyWindow: o.KeyWindow,
				Limit:     o.Limit,
			})
		},
		Synctest: true,
	})
}
