package main

import (
	"fmt"
	"log/slog"
	"os"
)

// logging says how a server writes its log.
type logging struct {
	LogFormat string `default:"text" enum:"text,json" env:"HALLEY_LOG_FORMAT" help:"How the server logs to standard error: text or json (${default})." placeholder:"FORMAT"`
	LogLevel  string `default:"info" enum:"debug,info,warn,error" env:"HALLEY_LOG_LEVEL" help:"What it logs at least: debug, info, warn or error (${default})." placeholder:"LEVEL"`
}

// setLogging sets the default logger.
func (l logging) setLogging() {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.LogLevel)) // it is one of the enum's
	if l.json() {
		slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level})))
		return
	}
	slog.SetLogLoggerLevel(level)
}

func (l logging) json() bool { return l.LogFormat == "json" }

// say logs what becomes of the server. As text it is a line of its own, which
// people and scripts wait for.
func (l logging) say(line, message string, attrs ...any) {
	if l.json() {
		slog.Info(message, attrs...)
		return
	}
	fmt.Fprintln(os.Stderr, line)
}

// sayError tells what a command has ended with.
func (l logging) sayError(err error) {
	if l.json() {
		slog.Error("halley: ended", "error", err)
		return
	}
	fmt.Fprintln(os.Stderr, "halley:", err)
}
