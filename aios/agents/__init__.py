"""Agent programs: what runs in user space. Meets the kernel at the abi alone, through a `Door`."""
