// Package e2e tests the real binaries in a lab of network namespaces: one
// scripted situation or failure per file. Clients and servers that need
// special behaviour run inside the test process, on sockets that were made in
// the lab's namespaces.
//
// Tests that measure rates and round trips run one after the other. Those that call
// t.Parallel mostly wait, or compare bytes, or hold stalls to bounds that are many times what
// is usual, and run beside each other after them.
//
// The tests need root and the programs that scripts/setup.sh installs; without
// them they skip with the reason.
package e2e
