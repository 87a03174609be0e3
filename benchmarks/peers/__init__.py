"""Other engines that run beside ours: each a child process that obeys the commands of `protocol`.

No peer is a dependency of the project. What has to be built or installed for one is kept outside the repository.
"""
