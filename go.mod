module github.com/halley-comet/halley

go 1.26
