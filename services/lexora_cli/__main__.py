"""`python -m lexora_cli` is `lexora`."""

from lexora_cli.main import main

if __name__ == "__main__":
    main()
