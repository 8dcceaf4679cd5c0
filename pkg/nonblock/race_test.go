//go:build race

package nonblock

const raced = true
