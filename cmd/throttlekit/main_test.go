package main

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/throttlekit/throttlekit-go/store/postgres/pgtest"
	"github.com/throttlekit/throttlekit-go/store/redis/redistest"
)

// The race detector would have every program of the tests wait for a second before it ends well.
const noWait = "atexit_sleep_ms=0"

// awsSettings satisfy AWS' library, which would otherwise look for credentials on the network.
var awsSettings = map[string]string{"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_EC2_METADATA_DISABLED": "true"}

func TestMain(m *testing.M) {
	_ = os.Setenv("GORACE", noWait)
	for name, value := range awsSettings {
		_ = os.Setenv(name, value)
	}
	testscript.Main(m, map[string]func(){"throttlekit": main, leasedClientName: leasedClient})
}

// The scripts of testdata/script run the real program. Besides the commands of testscript and storeCommands they have
//
//	exits CODE PROGRAM [ARG...]   run it to its end, with this exit code
//	until CODE PROGRAM [ARG...]   run it until it ends with this exit code
//	serve [ARG...]                start throttlekit serve on a free port; sets $GRPC, $HTTP, $GRPC_PORT and $HTTP_PORT
//	terminate CODE                send it SIGTERM; it ends with this exit code, and leaves serve.out and serve.err
//	tls                           write ca.pem, server.pem, server.key, client.pem and client.key
func TestScripts(t *testing.T) {
	t.Parallel()
	folder, err := filepath.Abs("../../vectors")
	if err != nil {
		t.Fatal(err)
	}
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"exits":     scriptExits,
		"until":     scriptUntil,
		"serve":     scriptServe,
		"terminate": scriptTerminate,
		"tls":       scriptTLS,
	}
	maps.Copy(commands, storeCommands)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("VECTORS", folder)
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", noWait)
			for name, value := range awsSettings {
				env.Setenv(name, value)
			}
			env.Setenv("BELL", "\a\x1b[31m\xff")
			env.Values[theServer{}] = new(*process)
			env.Values[theRedis{}] = new(*redistest.Server)
			env.Values[thePostgres{}] = new(*pgtest.Server)
			return nil
		},
		Cmds: commands,
	})
}

func scriptExits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func scriptUntil(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	for deadline := time.Now().Add(atMost); ; {
		got := 0
		if exit, ok := errors.AsType[*exec.ExitError](ts.Exec(args[1], args[2:]...)); ok {
			got = exit.ExitCode()
		}
		switch {
		case got == want:
			return
		case time.Now().After(deadline):
			ts.Fatalf("still exit code %d, want %d", got, want)
		}
	}
}

// theServer is the key of the server that a script has started.
type theServer struct{}

func scriptServe(ts *testscript.TestScript, _ bool, args []string) {
	p, err := start(ts.MkAbs("."), append([]string{"--port", "0"}, args...)...)
	ts.Check(err)
	ts.Defer(p.kill)
	ts.Setenv("GRPC", p.grpc)
	ts.Setenv("HTTP", p.http)
	ts.Setenv("GRPC_PORT", portOf(p.grpc))
	ts.Setenv("HTTP_PORT", portOf(p.http))
	*ts.Value(theServer{}).(**process) = p
}

func scriptTerminate(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	p := *ts.Value(theServer{}).(**process)
	ts.Check(p.signal(syscall.SIGTERM))
	got := p.wait()
	ts.Check(os.WriteFile(ts.MkAbs("serve.out"), []byte(p.stdout.String()), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs("serve.err"), []byte(p.stderr.String()), 0o600))
	if got != want {
		ts.Fatalf("exit code %d, want %d\n%s", got, want, p.stderr.String())
	}
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
