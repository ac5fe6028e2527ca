package disk

import (
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/halley-comet/halley/engine"
	"github.com/halley-comet/halley/engine/enginetest"
)

// TestEngine runs the suite in memory, where a crash leaves what was synced and
// nothing else.
func TestEngine(t *testing.T) {
	for _, mode := range []Fsync{Group, Always} {
		t.Run(mode.String(), func(t *testing.T) {
			var disks disks
			enginetest.Run(t, enginetest.Suite{
				Open: func(dir string, o enginetest.Options) (engine.Engine, error) {
					opts := suiteOptions(o)
					opts.Fsync, opts.fs = mode, disks.of(dir)
					return Open(dir, opts)
				},
				Durable: true,
				Crash: func(dir string, e engine.Engine) error {
					disks.crash(dir)
					return e.Close()
				},
			})
		})
	}
}

// TestEngineOnDisk runs it in the file system, with so little in memory that
// most of what the suite reads comes from the disk.
func TestEngineOnDisk(t *testing.T) {
	enginetest.Run(t, enginetest.Suite{
		Open: func(dir string, o enginetest.Options) (engine.Engine, error) {
			opts := suiteOptions(o)
			opts.Fsync, opts.TailBytes = Never, 200*tailMessage
			return Open(dir, opts)
		},
		Durable: true,
	})
}

func suiteOptions(o enginetest.Options) Options {
	return Options{Retention: o.Retention, Rules: o.Rules, KeyWindow: o.KeyWindow, Limit: o.Limit}
}

// disks are file systems in memory by the directory that is opened on them.
type disks struct {
	mu    sync.Mutex
	byDir map[string]*vfs.MemFS
}

func (d *disks) of(dir string) *vfs.MemFS {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.byDir == nil {
		d.byDir = make(map[string]*vfs.MemFS)
	}
	if d.byDir[dir] == nil {
		d.byDir[dir] = vfs.NewCrashableMem()
	}
	return d.byDir[dir]
}

// crash leaves the directory with what had been synced. What is open on it goes
// on with files that nobody will see.
func (d *disks) crash(dir string) {
	fs := d.of(dir).CrashClone(vfs.CrashCloneCfg{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byDir[dir] = fs
}
