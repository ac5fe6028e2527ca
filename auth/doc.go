// Package auth has authorizers for a hub: JWT for JSON Web Tokens, and Webhook
// for an application that is asked by HTTP. Both say what a client may do in
// the same words, see Rights, and hold what they have found out for a while, so
// that a client's next request costs little.
package auth
