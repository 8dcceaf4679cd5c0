package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"hawser/pkg/admin"
)

func (p *program[C]) checkCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "check", Short: "Look for what would make run fail, and say what to do about it"}
	path := p.configFlag(cmd)
	asJSON := cmd.Flags().Bool("json", false, "print the findings as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.check(cmd.Context(), *path, *asJSON)
	}
	return cmd
}

func (p *program[C]) check(ctx context.Context, path string, asJSON bool) error {
	findings := p.findings(ctx, path)
	if err := p.show(findings, asJSON); err != nil {
		return fail(err)
	}
	failed := 0
	for _, f := range findings {
		if f.Level == admin.LevelFail {
			failed++
		}
	}
	if failed > 0 {
		return fail(fmt.Errorf("run would fail: %d of %d findings", failed, len(findings)))
	}
	return nil
}

// findings looks at what is the same for both roles, then asks the role.
func (p *program[C]) findings(ctx context.Context, path string) []admin.Finding {
	cfg, err := p.load(path)
	if err != nil {
		return []admin.Finding{failed(err, "")} // there is nothing else to look at
	}
	found := []admin.Finding{passed("configuration %s", path)}
	key, err := p.identity(cfg)
	if err != nil {
		found = append(found, failed(err, ""))
	} else {
		found = append(found, passed("private key %s, public key %s", cfg.Settings().Identity, key))
	}
	socket, runs := p.socketFinding(ctx, cfg.Settings().Control)
	found = append(found, socket)
	for _, f := range p.role.Check(ctx, cfg, key) {
		if runs && f.Taken && f.Level == admin.LevelFail {
			f.Level, f.Remedy = admin.LevelWarn, unlessOurs(f.Remedy)
		}
		found = append(found, f)
	}
	return found
}

// unlessOurs is what to do about what the running agent may hold itself.
func unlessOurs(remedy string) string {
	const nothing = "nothing, if that is the agent that runs"
	if remedy == "" {
		return nothing
	}
	return nothing + "; else " + remedy
}

// socketFinding looks at the control socket; runs says that an agent answers on it. What that
// holds it would not hold any more when it is started anew: its namespace, its ports.
func (p *program[C]) socketFinding(ctx context.Context, path string) (_ admin.Finding, runs bool) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if dir, err := admin.Makeable(path); err != nil {
			return failed(fmt.Errorf("control socket: %s cannot be made in %s: %w", path, dir, err), "run as root, or set another path in control"), false
		}
		return passed("control socket %s is free", path), false
	case err != nil:
		return failed(fmt.Errorf("control socket: %w", err), "set another path in control"), false
	case info.Mode().Type() != os.ModeSocket:
		return failed(fmt.Errorf("control socket: %s exists and is no socket", path), "remove it, or set another path in control"), false
	}
	_, err = admin.Fetch(ctx, path)
	switch {
	case errors.Is(err, admin.ErrNoAgent):
		return passed("control socket %s is a crashed run's, and will be replaced", path), false
	case errors.Is(err, os.ErrPermission):
		return failed(err, ""), false
	}
	return admin.Finding{Level: admin.LevelWarn, What: "control socket: an agent is running on " + path,
		Remedy: "nothing, if it is the one you mean: this is what a new start of it would find"}, true
}

func passed(format string, args ...any) admin.Finding {
	return admin.Finding{Level: admin.LevelOK, What: fmt.Sprintf(format, args...)}
}

func failed(err error, remedy string) admin.Finding {
	return admin.Finding{Level: admin.LevelFail, What: oneLine(err), Remedy: remedy}
}

func (p *program[C]) show(findings []admin.Finding, asJSON bool) error {
	if asJSON {
		return p.printJSON(findings)
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(p.out, "%-5s %s\n", f.Level, f.What); err != nil {
			return err
		}
		if f.Remedy != "" && f.Level != admin.LevelOK {
			fmt.Fprintf(p.out, "      remedy: %s\n", f.Remedy)
		}
	}
	return nil
}

func (p *program[C]) printJSON(document any) error {
	encoder := json.NewEncoder(p.out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(document)
}
