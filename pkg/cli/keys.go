package cli

import (
	"crypto/rand"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"hawser/pkg/identity"
	"hawser/pkg/keyfile"
)

func (p *program[C]) genkeyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "genkey", Short: "Print a new private key, or write it to a file"}
	path := cmd.Flags().StringP("output", "o", "", "write the key to this new file, mode 0600, and print the public key")
	cmd.RunE = func(*cobra.Command, []string) error { return fail(p.genkey(*path)) }
	return cmd
}

func (p *program[C]) genkey(path string) error {
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		return err
	}
	if path == "" {
		_, err = p.out.Write(key.Encode())
		return err
	}
	if err := keyfile.Create(path, key); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, key)
	return err
}

func (p *program[C]) pubkeyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "pubkey", Short: "Print the public key of a private key read from standard input"}
	path := cmd.Flags().StringP("input", "i", "", "read the private key from this file instead")
	cmd.RunE = func(*cobra.Command, []string) error { return p.pubkey(*path) }
	return cmd
}

func (p *program[C]) pubkey(path string) error {
	key, err := p.privateKey(path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, key)
	return fail(err)
}

func (p *program[C]) privateKey(path string) (identity.Key, error) {
	if path != "" {
		return keyfile.Read(path)
	}
	data, err := io.ReadAll(io.LimitReader(p.in, identity.MaxFile+1))
	if err != nil {
		return identity.Key{}, fmt.Errorf("standard input: %w", err)
	}
	key, err := identity.Parse(data)
	if err != nil {
		return identity.Key{}, fmt.Errorf("standard input: %w", err)
	}
	return key, nil
}
