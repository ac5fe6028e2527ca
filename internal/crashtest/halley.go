package crashtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Halley returns the path of the command, which is built in a directory unless
// HALLEY_BINARY names one. Under the race detector it has one too.
func Halley(dir string) (string, error) {
	if built := os.Getenv("HALLEY_BINARY"); built != "" {
		return built, nil
	}
	program := filepath.Join(dir, "halley")
	build := exec.Command("go", "build", "-race="+strconv.FormatBool(raceDetector), "-o", program, "github.com/halley-comet/halley/cmd/halley")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", build, err, output)
	}
	return program, nil
}
