// Command halley is the Halley Comet server, and clients of it for the shell.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"

	"github.com/alecthomas/kong"
)

// cli is the command line. Flags of serve have the same names in the
// environment (HALLEY_LISTEN) and in the configuration file (listen).
type cli struct {
	Serve       serveCmd       `cmd:"" help:"Run the server."`
	Check       checkCmd       `cmd:"" help:"Check a configuration, and say what is risky in it."`
	Log         logCmd         `cmd:"" help:"Look after the log on disk."`
	Token       tokenCmd       `cmd:"" help:"Make and inspect tokens."`
	Publish     publishCmd     `cmd:"" help:"Publish messages."`
	Subscribe   subscribeCmd   `cmd:"" help:"Print messages as they come, one envelope a line."`
	Conformance conformanceCmd `cmd:"" help:"Test a server of the protocol over the wire."`
	Doctor      doctorCmd      `cmd:"" help:"Try every transport through whatever stands between, and say what to mend."`
	Version     versionCmd     `cmd:"" help:"Print the version."`
}

func main() {
	var c cli
	parser := kong.Must(&c,
		kong.Name("halley"),
		kong.Description("A Comet server: one ordered log, one cursor, every technique to push it to a browser."),
		kong.ShortUsageOnError(),
		kong.Configuration(c.Serve.loadConfig),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
	)
	args := os.Args[1:]
	if file := os.Getenv("HALLEY_CONFIG"); file != "" && len(args) > 0 && args[0] == "serve" {
		// Before the other flags, so that one on the command line goes last.
		args = slices.Insert(slices.Clone(args), 1, "--config="+file)
	}
	ctx, err := parser.Parse(args)
	parser.FatalIfErrorf(err)
	if err := ctx.Run(); err != nil {
		c.Serve.sayError(err)
		os.Exit(1)
	}
}

type versionCmd struct{}

func (versionCmd) Run() error {
	fmt.Println("halley", version())
	return nil
}

// version is that of the module, or of the commit, which the program was built
// from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" {
		return v
	}
	return "(devel)"
}
