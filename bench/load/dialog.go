package load

// A Step is one thing a client says, and what it waits for before it goes on.
type Step struct {
	// Send returns the bytes to send, given what came in answer to the step
	// before.
	Send func(answer []byte) []byte
	// Wait is what the answer contains when the step is done. Empty means
	// that nothing is waited for. What comes after it is taken for the stream.
	Wait string
}

// Say is a step of fixed bytes.
func Say(bytes, wait string) Step {
	data := []byte(bytes)
	return Step{Send: func([]byte) []byte { return data }, Wait: wait}
}

// A Dialog is what a client says until it is subscribed.
type Dialog struct {
	Steps []Step
	// Again makes a poll of it: it returns the next request, given the
	// request before and its whole answer. None ends the poll with [ErrRest].
	Again func(request, answer []byte) []byte
	// Whole, if it is set, returns how much of a stream's bytes is whole
	// messages. What is not whole yet does not count: were it cut, it would
	// come again.
	Whole func(stream []byte) int
}
