package scenario

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"
)

// resident returns the resident bytes of this process, without what its heap
// has to give back.
func resident() (float64, error) {
	debug.FreeOSMemory()
	kilobytes, err := procField("/proc/self/status", "VmRSS")
	return kilobytes * 1024, err
}

// An input is what this process has read, of all kinds of files.
type input struct {
	calls  float64 // bytes that calls returned, most of them from the system's cache
	device float64 // bytes that came from the disk
}

func inputs() (input, error) {
	calls, err := procField("/proc/self/io", "rchar")
	if err != nil {
		return input{}, err
	}
	device, err := procField("/proc/self/io", "read_bytes")
	return input{calls, device}, err
}

// procField reads a number from one of the system's files of lines.
func procField(path, name string) (value float64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, found := strings.CutPrefix(lines.Text(), name+":"); found {
			_, err := fmt.Sscan(rest, &value)
			return value, err
		}
	}
	return 0, errors.Join(lines.Err(), fmt.Errorf("%s has no %s", path, name))
}

// eachFile visits the files of a folder.
func eachFile(dir string, visit func(path string) error) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		return visit(path)
	})
}

// diskSize returns the bytes of a folder's files.
func diskSize(dir string) (bytes float64, err error) {
	err = eachFile(dir, func(path string) error {
		info, err := os.Stat(path)
		if err == nil {
			bytes += float64(info.Size())
		}
		return err
	})
	return bytes, err
}

// warm brings the files of a folder into the system's cache.
func warm(dir string) error {
	return eachFile(dir, func(path string) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
}

// cool takes the files of a folder out of the system's cache.
func cool(dir string) error {
	return eachFile(dir, func(path string) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		// What is not written yet stays in the cache.
		if err := f.Sync(); err != nil {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}
