package peers

// Node is a server made of JavaScript.
type Node struct {
	Peer
	name string
}
