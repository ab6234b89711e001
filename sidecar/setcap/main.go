// Command setcap gives a file the capabilities that tandem needs, so that an
// ordinary user can run it in a container: it is what the Dockerfile uses, since
// the images that Go is built in have no setcap(8).
//
// NET_ADMIN and NET_RAW become permitted and not effective: the kernel refuses
// to start a program with effective ones where a container has not been given
// them, and a witness needs none.
package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// revision is VFS_CAP_REVISION_2 without the effective bit, see
// linux/capability.h.
const revision = 0x02000000

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: setcap FILE")
		os.Exit(2)
	}
	if err := unix.Setxattr(os.Args[1], "security.capability", attribute(), 0); err != nil {
		fmt.Fprintf(os.Stderr, "setcap: %s: %v; it takes CAP_SETFCAP and a file system with extended attributes\n", os.Args[1], err)
		os.Exit(1)
	}
}

// attribute is struct vfs_cap_data: revision, then permitted and inheritable,
// the lower 32 capabilities first.
func attribute() []byte {
	permitted := uint32(1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW)
	var b []byte
	for _, word := range []uint32{revision, permitted, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return b
}
