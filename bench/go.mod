module github.com/halley-comet/halley/bench

go 1.26.0

replace github.com/halley-comet/halley => ../

require golang.org/x/sys v0.49.0 // indirect
