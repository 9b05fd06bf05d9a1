//! One whole appliance as a value that is stepped.
